"""Words in any script; of ASCII texts exactly those that a-z and 0-9 spell."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigma_core.grounding.lexical import LexicalHash, words_of
from sigma_core.instruction.phrases import name_words
from sigma_core.text_words import text_words

ASCII = st.text(alphabet=st.characters(codec="ascii"))


@given(ASCII)
def test_ascii_texts_keep_their_words(text: str) -> None:
    """So nothing that was made of an ASCII catalog changes."""
    assert name_words(text) == tuple(re.findall(r"[a-z0-9]+", text.lower()))


@given(ASCII, st.sampled_from(["é", "寿司", "™"]))
def test_what_stands_beside_other_scripts_keeps_its_words_too(text: str, other: str) -> None:
    alone = set(words_of(other))
    assert [word for word in words_of(f"{text} {other}") if word not in alone] == words_of(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Молоко", ["молоко"]),
        ("Кофе 100 г", ["кофе", "100", "г"]),
        ("寿司、味噌汁", ["寿司", "味噌汁"]),
        ("Crème brûlée", ["crème", "brûlée"]),
        ("Cre\u0300me", ["crème"]),  # the accent as a code point of its own
        ("Kleenex™ tissues", ["kleenex", "tissues"]),
        ("दूध", ["दूध"]),  # vowel signs are marks, not letters
        ("snake_case", ["snake", "case"]),
        ("🍕 — !", []),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert text_words(text) == words


@given(st.text())
def test_a_word_holds_a_letter_or_digit_and_no_blank(text: str) -> None:
    for word in text_words(text):
        assert any(map(str.isalnum, word))
        assert word.split() == [word]


def test_words_of_other_scripts_are_matched() -> None:
    lexical = LexicalHash.fit(["молоко, напитки", "кофе, напитки", "хлеб"], width=64, weight=1.0)
    milk, same, bread = lexical.encode(["МОЛОКО", "молоко", "хлеб"])
    assert milk @ same == pytest.approx(1.0)
    assert abs(milk @ bread) < 0.5
