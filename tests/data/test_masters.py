"""Catalog updates by hand on the toy world: who is listed, in which words, and what the diff says."""

from datetime import date, timedelta

import polars as pl

from sigma_core import columns as c
from sigma_core.data.catalog import CatalogBuilder, ItemCatalog
from sigma_core.data.catalog_diff import catalog_diff
from sigma_core.data.masters import Listing, item_types, listing_of
from tests.toy_world import TOY_CONFIG, TOY_DAY, TOY_START, toy_catalog, toy_events, toy_source

FIRST = toy_source().products()
NEXT = TOY_DAY + timedelta(days=1)


def with_new(items: pl.DataFrame, item: str = "tea_a") -> pl.DataFrame:
    words = {c.ITEM_ID: item, c.ITEM_TYPE: "green tea", c.CATEGORY: "tea"}
    return pl.concat([items, items.head(1).with_columns(pl.lit(v).alias(k) for k, v in words.items())])


def without(items: pl.DataFrame, item: str) -> pl.DataFrame:
    return items.filter(pl.col(c.ITEM_ID) != item)


def retyped(items: pl.DataFrame, item: str, kind: str) -> pl.DataFrame:
    is_it = pl.col(c.ITEM_ID) == item
    return items.with_columns(pl.when(is_it).then(pl.lit(kind)).otherwise(c.ITEM_TYPE).alias(c.ITEM_TYPE))


def catalog(listing: Listing | None, day: date = TOY_DAY) -> ItemCatalog:
    events = toy_events().filter(pl.col(c.EVENT_DATE) <= day)
    return CatalogBuilder(events, FIRST, TOY_CONFIG, TOY_START, listing).day(day)


def row(found: ItemCatalog, item: str) -> dict:
    return found.frame.row(by_predicate=pl.col(c.ITEM_ID) == item, named=True)


def test_an_update_without_changes_leaves_the_catalog_as_it_is() -> None:
    assert catalog(listing_of(FIRST, [(TOY_DAY, FIRST)], TOY_DAY)).digest() == toy_catalog().digest()


def test_a_listed_item_launches_that_day_unsold_and_without_a_price() -> None:
    found = row(catalog(listing_of(FIRST, [(TOY_DAY, with_new(FIRST))], TOY_DAY)), "tea_a")
    assert (found[c.LAUNCHED_ON], found[c.IS_NEW], found[c.NUM_BUYERS_56D]) == (TOY_DAY, True, 0)
    assert found[c.PRICE_BAND] is None
    assert found[c.TEXT] == found[c.LAUNCH_TEXT]
    assert found[c.TEXT].startswith("green tea")


def test_an_update_is_not_seen_before_its_day() -> None:
    listing = listing_of(FIRST, [(NEXT, without(with_new(FIRST), "ice_a"))], TOY_DAY)
    assert catalog(listing).digest() == toy_catalog().digest()
    assert not listing.listed_on


def test_a_delisted_item_is_gone_and_the_words_of_the_others_stay() -> None:
    found = catalog(listing_of(FIRST, [(TOY_DAY, without(FIRST, "ice_a"))], TOY_DAY))
    others = without(toy_catalog().frame, "ice_a").drop(c.IS_TAIL)
    assert found.frame.drop(c.IS_TAIL).equals(others)


def test_a_renamed_item_keeps_its_first_text_for_its_semantic_id() -> None:
    listing = listing_of(FIRST, [(TOY_DAY, retyped(FIRST, "dia_c", "moist wipes"))], TOY_DAY)
    found, before = row(catalog(listing), "dia_c"), row(toy_catalog(), "dia_c")
    assert found[c.TEXT].startswith("moist wipes")
    assert found[c.LAUNCH_TEXT] == before[c.LAUNCH_TEXT]
    assert found[c.PRICE_BAND] == before[c.PRICE_BAND]


def test_an_item_that_comes_back_is_there_again_and_is_not_new() -> None:
    updates = [(TOY_DAY, without(FIRST, "ice_c")), (NEXT, FIRST)]
    assert listing_of(FIRST, updates, NEXT).returned_on == {"ice_c": NEXT}
    back = catalog(listing_of(FIRST, updates, NEXT), NEXT)
    assert row(back, "ice_c")[c.IS_NEW] is False  # one buyer: without its return it would not be here
    diff = catalog_diff(catalog(listing_of(FIRST, updates, TOY_DAY)), back, NEXT, set(FIRST[c.ITEM_ID]))
    assert diff.items["relisted"] == ["ice_c"]


def test_types_of_delisted_items_stay_known() -> None:
    listing = listing_of(FIRST, [(TOY_DAY, retyped(without(FIRST, "ice_a"), "ice_b", "sorbet"))], TOY_DAY)
    types = dict(item_types(listing).iter_rows())
    assert types["ice_a"] == "premium ice cream"
    assert types["ice_b"] == "sorbet"


def test_the_diff_names_every_item_once_and_shows_examples() -> None:
    items = retyped(without(with_new(FIRST), "ice_a"), "dia_a", "cloth diapers")
    listing = listing_of(FIRST, [(TOY_DAY, items)], TOY_DAY)
    diff = catalog_diff(toy_catalog(), catalog(listing), TOY_DAY, set(items[c.ITEM_ID]))
    assert {kind: ids for kind, ids in diff.items.items() if ids} == {
        "new": ["tea_a"],
        "renamed": ["dia_a"],
        "delisted": ["ice_a"],
    }
    assert diff.num_same == 3
    assert "-> Cloth Diapers" in diff.examples["renamed"][0]
    assert "| delisted | 1 |" in diff.table()
    assert not diff.is_empty()
    dropped = catalog_diff(toy_catalog(), catalog(listing), TOY_DAY, None)
    assert dropped.items["dropped"] == ["ice_a"]
