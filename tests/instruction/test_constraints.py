"""What is read out of typed words, by hand; and for any text: no error, nothing read twice, nothing lost without a reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.instruction.constraints import Understood, group_rules, understand
from sigma_core.instruction.phrases import parse_rule
from sigma_core.instruction.tasks import TASKS, render
from tests.instruction.test_tasks import SLOTS

NAMES = {"dairy", "soda", "beer", "wine", "meat", "ice cream", "cheese", "frozen", "snacks", "produce"}


def known(words: str) -> bool:
    return words in NAMES


@pytest.mark.parametrize(
    ("said", "rest", "read"),
    [
        (
            "snacks for movie night, nothing from dairy, under $5",
            "snacks for movie night",
            {"without": ("dairy",), "max_price": 4.99},
        ),
        ("dinner but no meat, dairy and cheese", "dinner", {"without": ("meat", "dairy", "cheese")}),
        ("not soda again", "", {"without": ("soda",)}),
        ("no beer or wine please", "", {"without": ("beer", "wine")}),
        ("anything but ice cream", "", {"without": ("ice cream",)}),
        ("Without any soda. What else?", "What else?", {"without": ("soda",)}),
        ("between $2 and $5 snacks", "snacks", {"min_price": 2.0, "max_price": 5.0}),
        ("snacks $2-$5", "snacks", {"min_price": 2.0, "max_price": 5.0}),
        ("ice cream for less than 5 dollars", "ice cream", {"max_price": 4.99}),
        ("cheese, no more than $10, at least $2", "cheese", {"min_price": 2.0, "max_price": 10.0}),
        ("under $9, at most $4.50", "", {"max_price": 4.5}),
        ("a bike under $1,500", "a bike", {"max_price": 1499.99}),
        ("between $20 and $1,200 chairs", "chairs", {"min_price": 20.0, "max_price": 1200.0}),
        ("at most 1,234,567.50 dollars", "", {"max_price": 1234567.5}),
        ("cheese up to 4,99 euros", "cheese", {"max_price": 4.99}),
        ("only from produce", "", {"only": ("produce",)}),
        ("nothing I already bought", "", {"hide_owned": True}),
        ("surprise me, no repeats", "surprise me", {"hide_owned": True}),
    ],
)
def test_constraints_are_read_and_the_rest_is_left(said: str, rest: str, read: dict[str, object]) -> None:
    assert understand(said, known) == Understood(rest, **read)  # type: ignore[arg-type]
    assert len(understand(said, known).told()) >= 1


@pytest.mark.parametrize(
    "said",
    [
        "no fuss dinner",
        "games for kids under 5",
        "taco night",
        "not bad",
        "only the best",
        "nothing",
        "no",
        "$5",
        "under $10,0000",
        "",
    ],
)
def test_what_names_nothing_known_is_the_models(said: str) -> None:
    assert understand(said, known) == Understood(said)


def test_the_tasks_own_wordings_keep_their_words() -> None:
    """`No repeats: ...` says itself that it is a filter; no other wording loses a word."""
    for name, task in TASKS.items():
        for wording in range(len(task.wordings())):
            text = render(name, wording, SLOTS)
            read = understand(text, known)
            assert read.text == text or read == Understood(read.text, hide_owned=True), text


words = st.sampled_from(
    ["nothing", "from", "no", "not", "only", "without", "dairy", "soda", "ice", "cream", "under", "$5", "over", "2",
     "dollars", "and", "or", ",", ".", "again", "snacks", "please", "but", "between", "I", "already", "had", "for"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.lists(words, max_size=14).map(" ".join), st.text(max_size=60)))
def test_any_text_is_read_once_and_for_all(said: str) -> None:
    read = understand(said, known)
    assert understand(read.text, known) == Understood(read.text)  # nothing is left to read
    assert set(read.without) | set(read.only) <= NAMES
    assert all(value is None or value >= 0 for value in (read.min_price, read.max_price))
    if not read.told():
        assert read.text == said
    left, given_words = ({w.strip(" ,;.!?:") for w in text.split()} for text in (read.text, said))
    assert left - {""} <= given_words  # a stop may have moved to the word before it


def test_every_kind_of_the_file_is_a_rule() -> None:
    assert "dairy" in group_rules()
    for rules in group_rules().values():
        assert all(parse_rule(rule) for rule in rules)
