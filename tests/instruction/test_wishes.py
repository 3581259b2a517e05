"""Everyday wishes as shoppers type them: what is read, what text is left, and that nothing is read as its opposite."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.instruction.constraints import Understood, understand
from sigma_core.instruction.price_words import told_unread

NAMES = frozenset(
    ["dairy", "soda", "beer", "wine", "meat", "ice cream", "cheese", "snacks", "coffee", "chips", "sugar", "drinks", "chicken",
     "milk", "juice", "nuts", "gluten", "alcohol", "salt", "bread", "organic milk", "寿司", "молоко"]
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
    ("less than 3 dollars please", "", bounds(None, 2.99)),
    ("I want to order snacks under $5", "I want to order snacks", bounds(None, 4.99)),
    ("what can I order under $10", "what can I order", bounds(None, 9.99)),
    ("discount snacks under $5", "discount snacks", bounds(None, 4.99)),
    ("a few snacks under $5", "a few snacks", bounds(None, 4.99)),
    ("I need a few things under $5", "I need a few things", bounds(None, 4.99)),
    ("not expensive snacks under $5", "not expensive snacks", bounds(None, 4.99)),
    ("not too expensive under $5", "not too expensive", bounds(None, 4.99)),
    ("under $5 is fine", "is fine", bounds(None, 4.99)),
    ("under $5 would be great", "would be great", bounds(None, 4.99)),
    ("under $5 I will take it", "I will take it", bounds(None, 4.99)),
    ("under $5?", "", bounds(None, 4.99)),
    ("if possible under $5", "if possible", bounds(None, 4.99)),
    ("something I haven't bought under $5", "something I haven't bought", bounds(None, 4.99)),
    ("healthy but not boring under $5", "healthy but not boring", bounds(None, 4.99)),
    ("nothing fancy under $5", "nothing fancy", bounds(None, 4.99)),
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
    ("cheap snacks, no nuts", "cheap snacks", {"without": ("nuts",)}),
    ("without sugar", "", {"without": ("sugar",)}),
    ("nothing with gluten", "", {"without": ("gluten",)}),
    ("what's a good snack without nuts", "what's a good snack", {"without": ("nuts",)}),
    ("what is the healthiest bread without gluten", "what is the healthiest bread", {"without": ("gluten",)}),
    ("what's a nice gift without alcohol", "what's a nice gift", {"without": ("alcohol",)}),
    ("hard cheese without salt", "hard cheese", {"without": ("salt",)}),
    ("hard candy without sugar", "hard candy", {"without": ("sugar",)}),
    ("something that has no sugar", "something that has", {"without": ("sugar",)}),
    ("snacks that have no nuts", "snacks that have", {"without": ("nuts",)}),
    ("it should have no nuts", "it should have", {"without": ("nuts",)}),
    ("must have no sugar", "must have", {"without": ("sugar",)}),
    ("things that have no gluten", "things that have", {"without": ("gluten",)}),
    ("can I have no nuts", "can I have", {"without": ("nuts",)}),
    ("make sure there are no nuts", "make sure there are", {"without": ("nuts",)}),
    ("snacks without nuts are best for my kids", "snacks are best for my kids", {"without": ("nuts",)}),
    ("lunch without meat would be nice", "lunch would be nice", {"without": ("meat",)}),
    ("no nuts are allowed", "are allowed", {"without": ("nuts",)}),
    ("any snack but no nuts is ok", "any snack is ok", {"without": ("nuts",)}),
    ("I can't eat nuts so something without nuts", "I can't eat nuts so something", {"without": ("nuts",)}),
    ("I don't know what to cook without meat", "I don't know what to cook", {"without": ("meat",)}),
    ("bread without gluten is hard to find", "bread is hard to find", {"without": ("gluten",)}),
    # both in one breath
    ("no beer under $5", "", {"without": ("beer",), "max_price": 4.99}),
    ("nothing from dairy under $5", "", {"without": ("dairy",), "max_price": 4.99}),
    ("no sugar chips under $3", "chips", {"without": ("sugar",), "max_price": 2.99}),
    ("no nuts between $2 and $5", "", {"without": ("nuts",), **bounds(2.0, 5.0)}),
    ("no nuts if possible under $5", "if possible", {"without": ("nuts",), "max_price": 4.99}),
    ("nothing I already bought under $5", "", {"hide_owned": True, "max_price": 4.99}),
    ("only organic milk under $4", "", {"only": ("organic milk",), "max_price": 3.99}),
    # other currencies, and their decimal comma
    ("under 20 EUR", "", bounds(None, 19.99)),
    ("jeans at most CHF 80", "jeans", bounds(None, 80.0)),
    ("between EUR 10 and 20", "", bounds(10.0, 20.0)),
    ("jacket under 1.099,00 €", "jacket", bounds(None, 1098.99)),
    ("under ¥2000", "", bounds(None, 1999.99)),
    ("at most 2000円", "", bounds(None, 2000.0)),
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
        "no beer over $5", "I don't want snacks under $5", "dinner without wine over $20", "avoid wine over $20",
        "no gifts under $5", "nothing cheap under $5", "under $5 is too cheap", "under $5 would be too cheap", "under $5 won't do",
        "under $5 isn't enough", "avoid wine under $5", "over $10 is fine", "under $5? No.", "there is nothing good under $5",
        "nothing between $5 and $10", "nothing, over $10", "no I want something over $10", "don't skip anything under $5",
        "anything over $10 is too much", "over $10? No.", "if it's over $10 I won't buy it", "is there nothing under $5?",
        "I can't find anything under $5", "can't you find anything under $5?", "it doesn't have to be under $5",
        "rarely over $10", "too expensive over $10", "under $5 or over $20",
        # amounts that are no price of an item
        "at least $5 off", "save over $10", "free shipping on orders over $50", "free delivery on an order over $50", "coffee under $5/lb", "coffee under $5 a pound",
        "under $1 500", "cheese under $1m", "between $1 and 2k", "$5-10 pack of chips", "games for kids under 5",
        # names that are wished for
        "I can't live without coffee", "why not ice cream?", "not only soda but also chips", "never skip dairy",
        "no need to avoid dairy", "don't leave out dairy", "I don't want anything but soda", "nothing except soda",
        "no meat except chicken", "no drinks but soda", "no soda without sugar", "what's a party without beer?",
        "life without chips", "I'm lost without coffee", "dinner is sad without wine", "a day without coffee is a bad day",
        "no wine is too expensive for me", "no milk is left", "we have no bread left", "no milk at home", "no milk in the fridge",
        "no soda unless there is juice", "I have no milk", "we still have no milk", "my fridge has no milk", "I can't have snacks without nuts", "no milk left", "is there no soda?", "no soda?", "why is there only soda?", "we have only beer",
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
        ["anything", "that", "costs", "to", "spend", "dairy", "snacks", "for", "us", "please", "or"]
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
    cheap = understood(" ".join((no, *between, under, "$10")))
    assert cheap.max_price is None or cheap.without  # "no dairy under $10" are two wishes
    both = understood(" ".join((no, *between, under, "$10 or", over, "$20")))
    assert (both.min_price, both.max_price) in ((10.0, 20.0), (None, None))


@given(
    st.sampled_from(["can't live", "cannot do", "never leave", "don't start a day", "no party"]),
    st.sampled_from(sorted(NAMES)),
)
def test_what_one_cannot_be_without_is_not_left_out(no: str, name: str) -> None:
    assert understood(f"I {no} without {name}").without == ()


@pytest.mark.parametrize(
    ("said", "sums"),
    [
        ("Kleid unter 20 Euro", ["20 Euro"]),
        ("zwischen 10 € und 1.099,50 €", ["10 €", "1.099,50 €"]),
        ("2000円以下の本", ["2000円"]),
        ("avoid wine under $5", ["$5"]),
        ("size 20, 3 packs", []),
        ("something under €20", []),
    ],
)
def test_a_price_that_filters_nothing_is_told(said: str, sums: list[str]) -> None:
    left = understood(said).text
    told = told_unread(left)
    assert bool(told) == bool(sums)
    assert all(repr(one) in told for one in sums)
