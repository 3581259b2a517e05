"""The catalog of a day, by hand on the toy world and against its definition on the small one."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.contracts import load_contract
from sigma_core.data.catalog import CatalogBuilder, ItemCatalog, tail_of
from sigma_core.data.events import clean_events
from sigma_core.data.item_text import MAX_TEXT_CHARS, cut_long_texts
from sigma_core.data.price_bands import DAY, IS_LAUNCH, ITEM, PRICE, PriceBands, band_names
from sigma_core.data.sources.base import product_master
from tests.toy_world import (
    SMALL_CONFIG,
    SMALL_LAUNCH_DAY,
    SMALL_START,
    TOY_CONFIG,
    TOY_DAY,
    TOY_START,
    small_source,
    toy_catalog,
    toy_events,
    toy_source,
)

IN_CATALOG = ("dia_a", "dia_b", "dia_c", "ice_a", "ice_b")


@pytest.fixture(scope="module")
def small():
    source = small_source()
    events, _ = clean_events(source.events(), source.products()[c.ITEM_ID])
    return events, source.products()


def column(catalog: ItemCatalog, name: str) -> dict:
    return dict(catalog.frame.select(c.ITEM_ID, name).iter_rows())


# ------------------------------------------------------------------------------------------- toy
def test_toy_catalog_holds_items_with_two_buyers_and_the_launch():
    assert tuple(toy_catalog().frame[c.ITEM_ID]) == IN_CATALOG


def test_only_the_item_first_sold_after_the_censored_days_is_new():
    assert column(toy_catalog(), c.IS_NEW) == {i: i == "dia_c" for i in IN_CATALOG}
    assert column(toy_catalog(), c.LAUNCHED_ON)["dia_c"] == date(2024, 3, 5)
    assert column(toy_catalog(), c.LAUNCHED_ON)["dia_a"] is None


def test_toy_counts():
    assert column(toy_catalog(), c.NUM_EVENTS_56D) == dict(zip(IN_CATALOG, (3, 2, 1, 3, 3), strict=True))
    assert column(toy_catalog(), c.NUM_BUYERS_56D) == dict(zip(IN_CATALOG, (2, 2, 1, 2, 2), strict=True))


def test_the_day_before_its_launch_an_item_is_not_there():
    assert "dia_c" not in toy_catalog(date(2024, 3, 4)).frame[c.ITEM_ID].to_list()


def test_words_of_a_toy_item():
    words = toy_catalog().frame.filter(pl.col(c.ITEM_ID) == "ice_a")
    assert words[c.TEXT].item() == "premium ice cream 48 oz, grocery, private brand maker 1"
    assert words[c.TITLE].item() == "Premium Ice Cream 48 oz - private brand, maker 1"


def test_events_of_unknown_items_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="quarantine"):
        CatalogBuilder(toy_events(), toy_source().products().head(2), TOY_CONFIG, TOY_START)


def test_a_day_without_any_events_before_it_has_an_empty_catalog():
    assert toy_catalog(date(2024, 2, 1)).frame.is_empty()
    empty = CatalogBuilder(toy_events().clear(), toy_source().products(), TOY_CONFIG, TOY_START)
    assert empty.day(TOY_DAY).frame.is_empty()


def test_views_sell_nothing():
    views = toy_events().with_columns(pl.lit("view").alias(c.EVENT_TYPE))
    assert CatalogBuilder(views, toy_source().products(), TOY_CONFIG, TOY_START).day(TOY_DAY).frame.is_empty()


def test_a_later_event_changes_nothing_of_an_earlier_day():
    before = CatalogBuilder(
        toy_events().filter(pl.col(c.EVENT_DATE) <= TOY_DAY), toy_source().products(), TOY_CONFIG, TOY_START
    )
    assert before.day(TOY_DAY).frame.equals(toy_catalog().frame)


# ---------------------------------------------------------------------------------------- leakage
@pytest.mark.parametrize("offset", [0, 14, 22, 35, 52])
def test_small_catalog_does_not_know_the_future(small, offset):
    events, products = small
    day = SMALL_START + timedelta(days=offset)
    past = CatalogBuilder(events.filter(pl.col(c.EVENT_DATE) <= day), products, SMALL_CONFIG, SMALL_START)
    whole = CatalogBuilder(events, products, SMALL_CONFIG, SMALL_START)
    whole.day(SMALL_START + timedelta(days=59))  # what was computed for a later day must not leak either
    assert past.day(day).frame.equals(whole.day(day).frame)


def test_small_catalog_agrees_with_a_slow_count(small):
    events, products = small
    day = SMALL_START + timedelta(days=50)
    catalog = CatalogBuilder(events, products, SMALL_CONFIG, SMALL_START).day(day)
    past = events.filter(pl.col(c.EVENT_DATE) <= day)
    for days, name in ((28, c.NUM_EVENTS_28D), (14, c.NUM_EVENTS_14D), (56, c.NUM_EVENTS_56D)):
        window = past.filter(pl.col(c.EVENT_DATE) > day - timedelta(days=days))
        counts = dict(window.group_by(c.ITEM_ID).len().iter_rows())
        assert column(catalog, name) == {i: counts.get(i, 0) for i in catalog.frame[c.ITEM_ID]}
    first = dict(past.group_by(c.ITEM_ID).agg(pl.col(c.EVENT_DATE).min()).iter_rows())
    late = {i for i, d in first.items() if d >= SMALL_START + timedelta(days=SMALL_LAUNCH_DAY)}
    assert late == set(catalog.frame.filter(c.IS_NEW)[c.ITEM_ID]) != set()


def test_text_is_constant_within_a_month_and_launch_text_for_ever(small):
    events, products = small
    builder = CatalogBuilder(events, products, SMALL_CONFIG, SMALL_START)
    days = [date(2024, 10, 1), date(2024, 10, 16), date(2024, 10, 31)]
    texts = [column(builder.day(d), c.TEXT) for d in days]
    for earlier, later in pairwise(texts):
        assert all(later[i] == text for i, text in earlier.items() if i in later)
    launch = [column(builder.day(d), c.LAUNCH_TEXT) for d in (*days, date(2024, 11, 7))]
    for earlier, later in pairwise(launch):
        assert all(later[i] == text for i, text in earlier.items() if i in later)
    new = builder.day(date(2024, 10, 31)).frame.filter(c.IS_NEW)
    assert (new[c.TEXT] == new[c.LAUNCH_TEXT]).all()


def test_catalog_survives_the_disk(tmp_path):
    toy_catalog().save(tmp_path)
    loaded = ItemCatalog.load(tmp_path)
    assert loaded.frame.equals(toy_catalog().frame)
    assert loaded.digest() == toy_catalog().digest()


# ------------------------------------------------------------------------------------------ tail
def test_tail_of_the_docstring():
    assert tail_of(np.array([8, 1, 1]), 0.2).tolist() == [False, True, True]


def test_tail_breaks_ties_by_position_and_has_the_share_of_the_volume():
    sold = np.array([1, 5, 1, 1, 1, 1])  # 10 in all: 5 + 1 + 1 + 1 make 8, so the last two ones are the tail
    assert tail_of(sold, 0.2).tolist() == [False, False, False, False, True, True]


def test_items_that_did_not_sell_are_tail_and_no_items_are_no_tail():
    assert tail_of(np.array([4, 0]), 0.2).tolist() == [False, True]
    assert tail_of(np.array([], dtype=np.int64), 0.2).tolist() == []


# ---------------------------------------------------------------------------------- price bands
def sales(*rows: tuple[int, date, float | None, bool]) -> pl.DataFrame:
    schema = {ITEM: pl.Int64, DAY: pl.Date, PRICE: pl.Float64, IS_LAUNCH: pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").sort(DAY)


def names(bands: np.ndarray) -> list[str | None]:
    return band_names(bands).to_list()


MARCH = [(i, date(2024, 3, 10), price, True) for i, price in enumerate([1.0, 2.0, 3.0])]


def test_bands_are_the_terciles_of_the_month_before():
    bands = PriceBands(sales(*MARCH), np.zeros(3, dtype=np.int64), 56)
    assert names(bands.of_month(date(2024, 3, 31)).current) == [None, None, None]
    assert names(bands.of_month(date(2024, 4, 1)).current) == ["budget", "mid", "premium"]


def test_a_price_change_moves_the_band_next_month_but_not_the_first_known_one():
    raised = [(0, date(2024, 4, 10), 9.0, False)] * 3
    bands = PriceBands(sales(*MARCH, *raised), np.zeros(3, dtype=np.int64), 56)
    assert names(bands.of_month(date(2024, 4, 30)).current)[0] == "budget"
    assert names(bands.of_month(date(2024, 5, 1)).current)[0] == "premium"
    assert names(bands.of_month(date(2024, 5, 1)).first_known)[0] == "budget"


def test_an_item_launched_within_the_month_gets_the_band_of_its_first_day():
    launch = [(3, date(2024, 4, 9), 50.0, True), (3, date(2024, 4, 20), 0.1, False)]
    bands = PriceBands(sales(*MARCH, *launch), np.zeros(4, dtype=np.int64), 56)
    assert names(bands.of_month(date(2024, 4, 30)).current)[3] == "premium"


def test_an_item_without_recent_sales_keeps_its_band():
    bands = PriceBands(sales(*MARCH, (1, date(2024, 9, 1), 2.0, False)), np.zeros(3, dtype=np.int64), 56)
    assert names(bands.of_month(date(2024, 9, 30)).current) == ["budget", "mid", "premium"]


def test_a_large_type_is_cut_by_its_own_prices():
    dear = [(i, date(2024, 3, 10), 100.0 + i, True) for i in range(6)]
    cheap = [(6 + i, date(2024, 3, 10), 1.0 + i / 10, True) for i in range(6)]
    types = np.array([0] * 6 + [1] * 6)
    bands = names(PriceBands(sales(*dear, *cheap), types, 56).of_month(date(2024, 4, 1)).current)
    assert bands == ["budget", "budget", "mid", "mid", "premium", "premium"] * 2


def test_no_prices_no_bands():
    bands = PriceBands(sales((0, date(2024, 3, 1), None, True)), np.zeros(1, dtype=np.int64), 56)
    assert names(bands.of_month(date(2024, 9, 1)).current) == [None]


# ------------------------------------------------------------------------------------------ words
def test_items_with_one_shown_title_share_a_text_group():
    twins = (
        toy_source().products().with_columns(pl.lit("48 oz").alias(c.SIZE), pl.lit("maker 1").alias(c.MAKER))
    )
    twins = twins.with_columns(pl.lit("private brand").alias(c.BRAND))
    frame = CatalogBuilder(toy_events(), twins, TOY_CONFIG, TOY_START).day(TOY_DAY).frame
    groups = dict(frame.select(c.ITEM_ID, c.TEXT_GROUP).iter_rows())
    assert groups["ice_a"] == groups["ice_b"] != groups["dia_a"] == groups["dia_b"] != groups["dia_c"]


def test_a_source_with_titles_shows_them_as_they_are():
    titled = product_master(
        toy_source().products().with_columns((pl.lit("Movie ") + pl.col(c.ITEM_ID)).alias(c.TITLE))
    )
    frame = CatalogBuilder(toy_events(), titled, TOY_CONFIG, TOY_START).day(TOY_DAY).frame
    assert frame[c.TITLE].to_list()[0] == "Movie dia_a"
    assert frame[c.TEXT].to_list()[0].startswith("Movie dia_a, baby diapers 29 count")


def test_an_item_of_which_nothing_is_known_still_has_words():
    bare = product_master(toy_source().products().select(c.ITEM_ID))
    frame = CatalogBuilder(toy_events(), bare, TOY_CONFIG, TOY_START).day(TOY_DAY).frame
    assert frame[c.TEXT].to_list()[0] == "item dia_a"
    assert frame[c.TITLE].to_list()[0].lower() == "item dia_a"


def cut(text: str) -> str:
    return cut_long_texts(pl.DataFrame({"text": [text]}), "text")["text"].item()


def test_a_text_is_cut_at_the_last_whole_word_that_fits():
    words = "ab " * 133 + "c"  # 400 characters
    assert cut(words) == words
    assert cut(words + "d") == "ab " * 132 + "ab…"
    assert cut("ab, " * 200) == "ab, " * 99 + "ab…"
    assert cut("x" * 500) == "x" * 399 + "…"
    assert cut("ab " + "語" * 500) == "ab " + "語" * 396 + "…", "what has no blanks is cut within a word"
    assert len(cut("é" * 400)) == 400, "characters, not bytes"


def test_a_long_title_is_cut_for_the_encoder_and_changes_no_other_item():
    essay = pl.when(pl.col(c.ITEM_ID) == "dia_b").then(pl.lit("very soft " * 90)).otherwise(pl.col(c.TITLE))
    products = product_master(toy_source().products().with_columns(essay.alias(c.TITLE)))
    catalog = CatalogBuilder(toy_events(), products, TOY_CONFIG, TOY_START).day(TOY_DAY)
    row = catalog.frame.filter(pl.col(c.ITEM_ID) == "dia_b")
    assert row[c.TEXT].item() == row[c.LAUNCH_TEXT].item() == "very soft " * 39 + "very soft…"
    assert len(row[c.TITLE].item()) == 899, "a person is shown all of it"
    assert catalog.summary()["cut_texts"] == 1
    assert toy_catalog().summary()["cut_texts"] == 0
    others = pl.col(c.ITEM_ID) != "dia_b"
    assert catalog.frame.filter(others).equals(toy_catalog().frame.filter(others))


def test_texts_are_cut_where_their_contract_ends():
    expectations = load_contract("item_catalog").tables["item_catalog"].expectations
    (length,) = [one for one in expectations if one.meta.id == "text_length"]
    assert length.kwargs["max_value"] == MAX_TEXT_CHARS
