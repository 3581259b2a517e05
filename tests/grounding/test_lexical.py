"""Hashed words: what two texts share, weighted by how rare it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.grounding.lexical import SEARCH_LITERAL, LexicalHash, for_search, no_lexical, unit_rows

TEXTS = [
    "soda cola, soft drinks",
    "root beer, soft drinks",
    "white bread, bakery",
    "rye bread, bakery",
    "checkout candy",
]


@pytest.fixture
def lexical() -> LexicalHash:
    return LexicalHash.fit(TEXTS, width=512, weight=0.5)


def test_dot_products_are_the_weight_times_the_cosine(lexical):
    soda, beer, bread = lexical.encode(
        ["soda cola, soft drinks", "root beer, soft drinks", "white bread, bakery"]
    )
    assert soda @ soda == pytest.approx(0.5)
    assert 0 < soda @ beer < 0.5  # they share "soft" and "drink"
    assert abs(soda @ bread) < 0.1  # no word in common, a place or two of them


def test_a_rare_word_counts_for_more_than_a_common_one():
    lexical = LexicalHash.fit(["a1 common"] + [f"w{n} common" for n in range(50)], width=512, weight=1.0)
    both, rare, common = lexical.encode(["w3 common", "w3", "common"])
    assert both @ rare > 0.9 > both @ common


def test_words_no_text_said_match_nothing_and_do_not_dilute(lexical):
    plain, polite, unknown = lexical.encode(["candy", "candy zzz", "zzz"])
    np.testing.assert_array_equal(plain, polite)
    assert not unknown.any()


def test_a_word_no_text_said_is_unknown_however_its_hash_falls():
    """Of ten thousand such words some share every bucket with a known one."""
    lexical = LexicalHash.fit([f"word{n}" for n in range(500)], width=16, weight=1.0)
    assert not lexical.encode([f"other{n}" for n in range(10_000)]).any()
    assert lexical.encode(["word7"]).any()


def test_a_word_is_matched_whatever_its_case_and_number(lexical):
    one, many = lexical.encode(["soft drink", "Soft DRINKS"])
    np.testing.assert_array_equal(one, many)


def test_two_words_share_few_of_their_places():
    """Of a thousand words no two look alike: with one place a word, two in five hundred would be the same."""
    words = [f"word{n}" for n in range(1000)]
    rows = LexicalHash.fit(words, width=512, weight=1.0).encode(words)
    alike = np.abs(rows @ rows.T - np.eye(1000))
    assert alike.max() < 0.8
    assert np.mean(alike > 0.3) < 0.001


def test_a_search_takes_words_less_literally():
    asked = for_search(np.array([[1.0, 2.0, 3.0]]), 2)
    np.testing.assert_allclose(asked, [[1.0, 2.0, 3.0 * SEARCH_LITERAL]])


def test_off_means_rows_of_width_zero():
    assert no_lexical().encode(["soda"]).shape == (1, 0)


def test_unit_rows_leave_a_row_of_zeros():
    np.testing.assert_allclose(unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(alphabet="abc ", max_size=12), max_size=6))
def test_a_row_depends_on_its_text_alone(texts):
    lexical = LexicalHash.fit(["a b", "b c", "abc"], width=16, weight=0.7)
    rows = lexical.encode(texts)
    for row, text in zip(rows, texts, strict=True):
        np.testing.assert_array_equal(row, lexical.encode([text])[0])
        assert np.linalg.norm(row) == pytest.approx(np.sqrt(0.7), rel=1e-5) or not row.any()
