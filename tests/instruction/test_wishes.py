"""Everyday wishes as shoppers type them: what is read, what text is left, and that nothing is read as its opposite."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.instruction.constraints import Understood, understand

NAMES = frozenset(
    ["dairy", "soda", "beer", "wine", "meat", "ice cream", "cheese", "snacks", "coffee", "chips", "sugar", "drinks", "chicken",
     "milk", "juice", "寿司", "молоко"]
)  # fmt: skip


def understood(said: str) -> Understood:
    return understand(said, NAMES.__contains__)


def bounds(low: float | None, high: float | None) -> dict[str, Any]:
    return {"min_price": low, "max_price": high}


READ: list[tuple[str, str, dict[str, Any]]] = [
    # prices
    ("a gift for mom under $30", "a gift for mom", bounds(None, 29.99)),
    ("coffee, max $10, min $2", "coffee", bounds(2.0, 10.0)),
    ("something for more than $20 but less than $50", "something", bounds(20.01, 49.99)),
    ("chips for up to 3,50 euros", "chips", bounds(None, 3.5)),
    ("no more than $10", "", bounds(None, 10.0)),
    ("not less than $5", "", bounds(5.0, None)),
    ("coffee, not over $10", "coffee", bounds(None, 10.0)),
    ("why not soda under $5?", "why not soda?", bounds(None, 4.99)),
    ("not too sweet under $10", "not too sweet", bounds(None, 9.99)),
    # a negated bound is the other one
    ("nothing over $10", "", bounds(None, 10.0)),
    ("nothing above $10", "", bounds(None, 10.0)),
    ("I don't want anything over $10", "", bounds(None, 10.0)),
    ("nothing that costs more than $10", "", bounds(None, 10.0)),
    ("never more than $10", "", bounds(None, 10.0)),
    ("none over $5", "", bounds(None, 5.0)),
    ("isn't over $5", "", bounds(None, 5.0)),
    ("nothing under $5", "", bounds(5.0, None)),
    ("snacks that aren’t over $5", "snacks", bounds(None, 5.0)),
    ("I do not want to spend more than 10 dollars", "", bounds(None, 10.0)),
    ("skip anything over $10", "", bounds(None, 10.0)),
    ("dinner without going over $25", "dinner", bounds(None, 25.0)),
    ("nothing under $5 or over $20", "", bounds(5.0, 20.0)),
    ("neither under $5 nor over $20", "", bounds(5.0, 20.0)),
    ("not over $20 and over $5", "", bounds(5.01, 20.0)),
    ("please don't show me anything over $20, no dairy", "", {"max_price": 20.0, "without": ("dairy",)}),
    # ranges and units
    ("between $5 and 10", "", bounds(5.0, 10.0)),
    ("between 5 and $10", "", bounds(5.0, 10.0)),
    ("$5-10 snacks", "snacks", bounds(5.0, 10.0)),
    ("from 5 to 10 euros", "", bounds(5.0, 10.0)),
    ("laptops under $1.5k", "laptops", bounds(None, 1499.99)),
    ("a bike between $500 and 2k", "a bike", bounds(500.0, 2000.0)),
    ("at least $2 thousand", "", bounds(2000.0, None)),
    ("nothing over $1,200", "", bounds(None, 1200.0)),
    # exclusion and only
    ("dinner, no dairy or beer please", "dinner please", {"without": ("dairy", "beer")}),
    ("dinner without dairy?", "dinner?", {"without": ("dairy",)}),
    ("not soda but juice", "juice", {"without": ("soda",)}),
    ("anything but soda", "", {"without": ("soda",)}),
    ("dont want soda", "", {"without": ("soda",)}),
    ("no dairy if possible", "if possible", {"without": ("dairy",)}),
    ("nothing but soda", "", {"only": ("soda",)}),
    ("no dairy, only soda", "", {"without": ("dairy",), "only": ("soda",)}),
    ("no beer, under $5", "", {"without": ("beer",), "max_price": 4.99}),
    ("no soda, under $5, over $2", "", {"without": ("soda",), **bounds(2.01, 4.99)}),
    ("snacks without dairy under $5", "snacks", {"without": ("dairy",), "max_price": 4.99}),
    ("something new, nothing I already bought", "something new", {"hide_owned": True}),
    # other scripts
    ("寿司 under $10", "寿司", bounds(None, 9.99)),
    ("подарок маме under $20", "подарок маме", bounds(None, 19.99)),
    ("🍕 $5-$10", "🍕", bounds(5.0, 10.0)),
    ("no молоко please", "", {"without": ("молоко",)}),
    ("only 寿司", "", {"only": ("寿司",)}),
]


@pytest.mark.parametrize(("said", "rest", "read"), READ, ids=[said for said, *_ in READ])
def test_a_wish_is_read(said: str, rest: str, read: dict[str, Any]) -> None:
    assert understood(said) == Understood(rest, **read)


@pytest.mark.parametrize(
    "said",
    [
        # a negation that may be meant for something else, or a question, a complaint, a rule of the shop
        "no beer under $5", "nothing from dairy under $5", "dinner without wine over $20", "avoid wine over $20",
        "nothing between $5 and $10", "nothing, over $10", "no I want something over $10", "don't skip anything under $5",
        "anything over $10 is too much", "over $10? No.", "if it's over $10 I won't buy it", "is there nothing under $5?",
        "I can't find anything under $5", "can't you find anything under $5?", "it doesn't have to be under $5",
        "rarely over $10", "too expensive over $10", "under $5 or over $20",
        # amounts that are no price of an item
        "at least $5 off", "save over $10", "free shipping on orders over $50", "coffee under $5/lb", "coffee under $5 a pound",
        "under $1 500", "cheese under $1m", "between $1 and 2k", "$5-10 pack of chips", "games for kids under 5",
        # names that are wished for
        "I can't live without coffee", "why not ice cream?", "not only soda but also chips", "never skip dairy",
        "no need to avoid dairy", "don't leave out dairy", "I don't want anything but soda", "nothing except soda",
        "no meat except chicken", "no drinks but soda", "no soda without sugar", "what's a party without beer?",
        "I have no milk", "no milk left", "is there no soda?", "no soda?", "why is there only soda?", "we have only beer",
        "I have everything but milk", "cheese is the only dairy I eat", "if not soda, then beer", "with or without dairy",
        "only dairy free snacks", "no dairy alternatives", "nothing I have not bought", "nothing I have to cook",
    ],
)  # fmt: skip
def test_in_doubt_a_wish_is_the_models(said: str) -> None:
    assert understood(said) == Understood(said)


negations = st.sampled_from(
    [
        "nothing",
        "none",
        "never",
        "not",
        "I don't want",
        "isn't",
        "do not show",
        "wont pay",
        "cannot spend",
        "no",
        "no items",
    ]
)
fillers = st.lists(
    st.sampled_from(
        ["anything", "that", "costs", "to", "spend", "dairy", "tasty", "snacks", "for", "us", "please", "or"]
    ),
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(
    negations,
    fillers,
    st.sampled_from(["over", "above", "more than"]),
    st.sampled_from(["under", "below", "less than"]),
)
def test_a_negated_bound_is_never_read_as_it_stands(
    no: str, between: list[str], over: str, under: str
) -> None:
    assert understood(" ".join((no, *between, over, "$10"))).min_price is None
    assert understood(" ".join((no, *between, under, "$10"))).max_price is None
    both = understood(" ".join((no, *between, under, "$10 or", over, "$20")))
    assert (both.min_price, both.max_price) in ((10.0, 20.0), (None, None))


@given(
    st.sampled_from(["can't live", "cannot do", "never leave", "don't start a day", "no party"]),
    st.sampled_from(sorted(NAMES)),
)
def test_what_one_cannot_be_without_is_not_left_out(no: str, name: str) -> None:
    assert understood(f"I {no} without {name}").without == ()
