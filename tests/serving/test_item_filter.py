"""Filters: what words name, and that no list ever breaks one."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.data.typical_prices import PRICES_SCHEMA, typical_prices
from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request
from sigma_core.serving.item_filter import FilterError, FilterTable, ItemFilter, read_words
from tests.model_world import tiny_user, tiny_world
from tests.toy_world import TOY_DAY, toy_catalog, toy_events

PRICES = pl.DataFrame([("dia_a", 20.0), ("ice_a", 4.0), ("ice_b", 5.0)], schema=PRICES_SCHEMA, orient="row")
NOTHING: frozenset[int] = frozenset()
KIND = (c.DEPARTMENT, c.CATEGORY, c.ITEM_TYPE, c.BRAND)


@pytest.fixture(scope="module")
def table() -> FilterTable:
    frame = toy_catalog().frame
    return FilterTable(frame[c.ITEM_ID].to_list(), frame, PRICES)


def listed(
    table: FilterTable, wanted: ItemFilter, task_filter: str = "none", owned: frozenset[int] = NOTHING
) -> str:
    """Letters of the items that pass: diapers a b c, ice cream A B."""
    rows = table.rows(wanted, task_filter, owned)
    return "".join(name for name, passes in zip("abcAB"[: len(rows)], rows, strict=True) if passes)


@pytest.mark.parametrize(
    ("wanted", "passing"),
    [
        (ItemFilter(), "abcAB"),
        (ItemFilter(categories=("diapers",)), "abc"),
        (ItemFilter(only=("diaper",)), "abc"),  # the category of that name, in the singular
        (ItemFilter(only=("baby wipes",)), "c"),  # a type
        (ItemFilter(only=("wipes",)), "c"),  # a part of a type's name
        (ItemFilter(only=("nappies",)), "abc"),  # a phrase of phrases.yaml
        (ItemFilter(without=("dairy",)), "abc"),  # a kind of constraint_words.yaml; ice cream is one
        (ItemFilter(without=("ice cream", "wipes")), "ab"),
        (ItemFilter(only=("ice cream",), without=("premium ice cream",)), ""),
        (ItemFilter(max_price=4.99), "A"),  # dia_b and dia_c have no known price
        (ItemFilter(min_price=5.0), "aB"),
        (ItemFilter(only_items=frozenset({"ice_b", "unheard of"})), "B"),
        (ItemFilter(exclude_items=("ice_b", "unheard of")), "abcA"),
        (ItemFilter(only_new=True), "c"),
    ],
)
def test_filters_by_hand(table: FilterTable, wanted: ItemFilter, passing: str) -> None:
    assert listed(table, wanted) == passing


def test_where_nothing_has_a_price_words_bound_none(table: FilterTable) -> None:
    """A news service asked for "phones under $500" would have answered that nothing passes."""
    frame = toy_catalog().frame
    free = FilterTable(frame[c.ITEM_ID].to_list(), frame, PRICES.clear())
    said = read_words(free, "nothing from diapers, under $5", None, ItemFilter())
    assert (said.query, said.told) == ("under $5", ("nothing from diapers",))
    assert listed(free, said.wanted) == "AB"
    assert read_words(table, "under $5", None, ItemFilter()).wanted.max_price == 4.99


def test_names_of_other_scripts_are_names() -> None:
    frame = toy_catalog().frame
    named = frame.with_columns(
        pl.when(pl.col(c.CATEGORY) == "diapers")
        .then(pl.lit("Кофе 100"))
        .otherwise(pl.lit("Молоко"))
        .alias(c.CATEGORY)
    )
    table = FilterTable(frame[c.ITEM_ID].to_list(), named, PRICES)
    assert listed(table, ItemFilter(without=("молоко",))) == "abc"
    assert listed(table, ItemFilter(only=("Молоко",))) == "AB"
    assert not table.knows("чай")


def test_a_category_of_several_things_is_split_by_its_types() -> None:
    kinds = [
        ("ice cream and sherbet", "sherbet"),
        ("ice cream and sherbet", "ice cream pint"),
        ("soups and stews", "canned"),
    ]
    frame = (
        toy_catalog()
        .frame.head(3)
        .with_columns(
            pl.Series(c.CATEGORY, [k[0] for k in kinds]), pl.Series(c.ITEM_TYPE, [k[1] for k in kinds])
        )
    )
    table = FilterTable(frame[c.ITEM_ID].to_list(), frame, PRICES)
    assert listed(table, ItemFilter(without=("sherbet",))) == "bc"
    assert listed(table, ItemFilter(only=("ice creams",))) == "b"
    assert listed(table, ItemFilter(only=("stew",))) == "c"  # no type says so: the whole category


def test_history_filters(table: FilterTable) -> None:
    owned = frozenset({3})
    assert listed(table, ItemFilter(), "items", owned) == "abcB"
    assert listed(table, ItemFilter(owned="keep"), "items", owned) == "abcAB"
    assert listed(table, ItemFilter(owned="hide_items"), "none", owned) == "abcB"
    assert "A" not in listed(table, ItemFilter(owned="hide_texts"), "none", owned)


def test_words_that_name_nothing_are_refused(table: FilterTable) -> None:
    with pytest.raises(FilterError, match="'motor oil' names no"):
        table.rows(ItemFilter(without=("motor oil",)), "none", NOTHING)
    assert not table.knows("motor oil")


def test_words_become_filters_beside_those_that_were_given(table: FilterTable) -> None:
    asked = ItemFilter(max_price=9.0, owned="hide_texts")
    query, instruction, both, told = read_words(
        table, "wipes under $20", "no ice cream, nothing I had before", asked
    )
    assert (query, instruction) == ("wipes", None)
    assert (both.max_price, both.without, both.owned) == (9.0, ("ice cream",), "hide_texts")
    assert told == ("price at most 19.99", "nothing from ice cream", "nothing bought before")


def test_a_typical_price_is_the_median_of_what_was_paid_up_to_the_day() -> None:
    prices = dict(typical_prices(toy_events(), TOY_DAY, 56).iter_rows())
    assert prices["ice_a"] == 4.0
    events = toy_events().with_columns(
        pl.when(pl.col(c.EVENT_DATE) > TOY_DAY).then(99.0).otherwise(c.PRICE).alias(c.PRICE)
    )
    assert dict(typical_prices(events, TOY_DAY, 56).iter_rows()) == prices
    assert "ice_b" not in dict(
        typical_prices(toy_events().filter(pl.col(c.ITEM_ID) != "ice_b"), TOY_DAY, 56).iter_rows()
    )


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000), st.sets(st.integers(0, 22), max_size=22), st.integers(1, 4), st.floats(0.05, 1.0)
)
def test_no_list_breaks_a_filter(seed: int, excluded: set[int], depth: int, mass: float) -> None:
    world = tiny_world(depth, seed=seed, num_prefixes=5, prefix_mass=mass)
    ask = Ask(Request("x y", "soda"), np.array(sorted(excluded), np.int64))
    ranked = world.recommender.rank([tiny_user("u", seed)], [[ask]], world.focus, 1000)[0]
    assert not {r.row for r in ranked} & excluded
    assert ranked  # at least one item is eligible, so at least one is found


def test_words_never_weaken_what_a_task_hides(table: FilterTable) -> None:
    """Owned is a diaper whose twin reads the same: a task that hides texts goes on hiding both."""
    frame = toy_catalog().frame
    twins = frame.with_columns(
        pl.when(pl.col(c.ITEM_ID).is_in(["dia_a", "dia_b"])).then(pl.lit("one")).otherwise(c.TEXT_GROUP)
        .alias(c.TEXT_GROUP)
    )  # fmt: skip
    table = FilterTable(frame[c.ITEM_ID].to_list(), twins, PRICES)
    owned = frozenset({frame[c.ITEM_ID].to_list().index("dia_a")})
    said = read_words(table, None, "nothing I already have", ItemFilter()).wanted
    assert said.owned == "hide_items"
    assert listed(table, said, "texts", owned) == listed(table, ItemFilter(), "texts", owned) == "cAB"
    assert listed(table, said, "none", owned) == "bcAB"
    assert listed(table, ItemFilter(owned="hide_texts"), "items", owned) == "cAB"
    assert listed(table, ItemFilter(owned="keep"), "texts", owned) == "abcAB"


def test_what_callers_type_keeps_no_memory_by_row() -> None:
    frame = toy_catalog().frame
    many = pl.concat([frame.with_columns(pl.col(c.ITEM_ID) + f"_{n}") for n in range(50)])
    table = FilterTable(many[c.ITEM_ID].to_list(), many, PRICES)
    assert table.named("wipes").shape == (250,)
    assert table._kinds_of("wipes").nbytes == len(set(zip(*(frame[n] for n in KIND), strict=True))) <= 5
    before = table._kinds_of.cache_info().currsize
    with pytest.raises(FilterError, match="'qwertz' names no"):
        table.rows(ItemFilter(only=("qwertz",)), "none", NOTHING)
    assert table._kinds_of.cache_info().currsize == before, "a word that stands nowhere is not kept"
