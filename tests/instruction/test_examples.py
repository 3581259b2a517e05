"""Examples of a cut: targets by hand in the toy world, splits that never mix, inputs that never see the future."""

import json
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.config import SigmaConfig
from sigma_core.data.offers import Offers, offers_of
from sigma_core.data.splits import target_window
from sigma_core.instruction.examples import EXAMPLE_SCHEMA, build_examples
from sigma_core.instruction.phrases import load_phrases
from sigma_core.instruction.tasks import TASKS, render
from tests.instruction.small_world import CONFIG, CUT, small_catalog, small_events, small_profiles
from tests.toy_world import (
    HOLIDAY_CATEGORY,
    TOY_CONFIG,
    TOY_DAY,
    toy_catalog,
    toy_events,
    toy_offers,
    toy_profiles,
)

TOY = SigmaConfig(data=TOY_CONFIG.model_copy(update={"min_category_items": 3}))
HELD_OUT = {p.text for book in load_phrases() for p in book.phrases if p.is_held_out}


def toy(split="test", **options):
    return build_examples(TOY_DAY, toy_events(), toy_catalog(), toy_profiles(), TOY, split=split, **options)


def small(split="test", events=None, config=CONFIG, **options):
    events = small_events() if events is None else events
    return build_examples(CUT, events, small_catalog(), small_profiles(), config, split=split, **options)


def test_toy_examples_by_hand():
    rows = toy().examples.select(c.USER_ID, c.TASK, c.FOCUS_TEXT, c.TARGETS).rows()
    assert [row for row in rows if row[1] != "query"] == [
        ("u1", "category", "diapers", ["dia_b"]),
        ("u1", "discover", "", ["dia_b"]),
        ("u1", "just_for_you", "", ["dia_b", "ice_a"]),
        ("u3", "category", "diapers", ["dia_a"]),
        ("u3", "just_for_you", "", ["dia_a"]),
        ("u4", "category", "diapers", ["dia_c"]),
        ("u4", "discover", "", ["dia_c"]),
        ("u4", "just_for_you", "", ["dia_c"]),
        ("u4", "longtail", "", ["dia_c"]),
    ]
    assert ("u1", "query", "ice cream", ["ice_a"]) in rows
    assert ("u4", "query", "nappies", ["dia_c"]) in rows
    assert toy().dropped["targets_outside_catalog"] == 1


def test_campaign_examples_by_hand():
    built = toy(offers=toy_offers())
    rows = (
        built.examples.filter(pl.col(c.TASK) == "campaign").select(c.USER_ID, c.FOCUS_TEXT, c.TARGETS).rows()
    )
    assert rows == [
        ("u1", "offer-baby: baby diapers, baby wipes", ["dia_b"]),
        ("u1", "offer-ice: premium ice cream", ["ice_a"]),
        ("u3", "offer-baby: baby diapers, baby wipes", ["dia_a"]),
        ("u4", "offer-baby: baby diapers, baby wipes", ["dia_c"]),
    ]
    others = built.examples.filter(pl.col(c.TASK) != "campaign")
    assert others.equals(toy().examples)  # an offer changes no other task


def test_an_offer_that_starts_after_the_cut_changes_nothing():
    offers = toy_offers()
    known = Offers(offers.sent.filter(~pl.col(c.OFFER_ID).is_in(["later", "over"])), offers.items)
    assert toy(offers=known).examples.equals(toy(offers=offers).examples)


def test_dates_and_schema():
    built = toy()
    assert dict(built.examples.schema) == EXAMPLE_SCHEMA
    assert built.examples.select(c.CUT_DATE, c.TARGET_END).unique().rows() == [
        (TOY_DAY, TOY_DAY + timedelta(days=7))
    ]
    assert built.contexts[c.USER_ID].to_list() == ["u1", "u3", "u4"]  # u2's only target left the catalog


def test_only_the_users_asked_for():
    built = toy(users=["u4", "u1", "nobody"])
    assert set(built.examples[c.USER_ID]) == set(built.contexts[c.USER_ID]) == {"u1", "u4"}
    assert toy(users=[]).examples.height == 0


def test_a_user_without_history_is_evaluated_but_not_trained_on():
    events = toy_events().filter(~((pl.col(c.USER_ID) == "u3") & (pl.col(c.EVENT_DATE) <= TOY_DAY)))
    world = (TOY_DAY, events, toy_catalog(), toy_profiles(), TOY)
    tested, trained = (build_examples(*world, split=split) for split in ("test", "train"))
    assert tested.contexts.filter(pl.col(c.USER_ID) == "u3")[c.RECENT_ITEMS].to_list() == [[]]
    assert "u3" not in set(trained.contexts[c.USER_ID]) | set(trained.examples[c.USER_ID])
    assert (tested.dropped["users_without_history"], trained.dropped["users_without_history"]) == (0, 1)


def test_a_catalog_of_a_later_day_is_refused():
    with pytest.raises(ValueError, match="after the cut"):
        build_examples(
            TOY_DAY - timedelta(days=1), toy_events(), toy_catalog(), toy_profiles(), TOY, split="test"
        )


def test_halloween_labels_come_from_outcomes():
    asked = small().examples.filter(pl.col(c.TASK) == "holiday")
    assert asked.height > 20
    assert set(asked[c.FOCUS_TEXT]) == {"Halloween"}
    assert set(asked[c.SLOTS]) == {'{"holiday": "Halloween"}'}
    catalog = small_catalog().frame
    kinds = asked.explode(c.TARGETS).join(catalog, left_on=c.TARGETS, right_on=c.ITEM_ID)[c.CATEGORY]
    assert (kinds == HOLIDAY_CATEGORY).mean() > 0.9
    calm = small_events().filter(pl.col(c.EVENT_DATE) <= CUT - timedelta(days=14))
    earlier = CUT - timedelta(days=21)
    quiet = build_examples(
        earlier, calm, small_catalog(earlier), small_profiles(earlier), CONFIG, split="test"
    ).examples
    assert quiet.filter(pl.col(c.TASK) == "holiday").height == 0  # no holiday people shop for is near


def test_every_slot_renders_every_wording():
    for task, slots in small().examples.select(c.TASK, c.SLOTS).unique().iter_rows():
        for wording in range(len(TASKS[task].wordings())):
            assert render(task, wording, json.loads(slots))


def test_the_test_split_asks_all_phrases_and_marks_the_held_out_ones():
    asked = small().examples.filter(pl.col(c.TASK) == "query")
    marked = {json.loads(s)["phrase"]: json.loads(s)["is_held_out_phrase"] for s in asked[c.SLOTS]}
    assert any(marked.values())
    assert not all(marked.values())
    assert {phrase for phrase, held_out in marked.items() if held_out} == set(marked) & HELD_OUT
    assert set(small().examples[c.WORDING]) == {0}


def test_the_train_split_never_holds_a_test_phrase_or_a_held_out_wording():
    examples = small("train").examples
    assert not set(examples.filter(pl.col(c.TASK) == "query")[c.FOCUS_TEXT]) & HELD_OUT
    for task, wording in examples.select(c.TASK, c.WORDING).unique().iter_rows():
        assert wording in TASKS[task].seen_wordings()
    assert examples.filter(pl.col(c.TASK) == "just_for_you")[c.WORDING].n_unique() > 3


def test_limits_are_kept_by_hash_and_counted():
    free, capped = small(), small(max_requests=1)
    count = capped.examples.group_by(c.USER_ID, c.TASK).len()
    assert count["len"].max() == 1
    assert capped.dropped["requests_over_limit"] == free.examples.height - capped.examples.height > 0
    kept = capped.examples.join(free.examples, on=[c.USER_ID, c.TASK, c.SLOTS, c.TARGETS], how="semi")
    assert kept.height == capped.examples.height
    chosen = capped.examples.filter(pl.col(c.TASK) == "query")[c.FOCUS_TEXT]
    assert chosen.n_unique() > 3  # a hash, not the first of the alphabet


def test_long_targets_are_cut_in_training_only():
    trained, tested = small("train"), small("test")
    size = pl.col(c.TARGETS).list.len()
    assert trained.examples.select(size.max()).item() == CONFIG.instruction.max_targets
    assert tested.examples.select(size.max()).item() > CONFIG.instruction.max_targets
    lost = small("train", config=CONFIG.model_copy(update={"instruction": TOY.instruction})).examples.select(
        size.sum()
    )
    assert trained.dropped["targets_over_limit"] == lost.item() - trained.examples.select(size.sum()).item()


def test_targets_are_sorted_purchases_of_the_window():
    first, last = target_window(CUT, 7)
    bought = small_events().filter(pl.col(c.EVENT_DATE).is_between(first, last)).select(c.USER_ID, c.ITEM_ID)
    for split in ("train", "test"):
        pairs = small(split).examples.explode(c.TARGETS).select(c.USER_ID, pl.col(c.TARGETS).alias(c.ITEM_ID))
        assert pairs.join(bought, on=[c.USER_ID, c.ITEM_ID], how="anti").is_empty()
        assert small(split).examples.select((pl.col(c.TARGETS) == pl.col(c.TARGETS).list.sort()).all()).item()


def test_row_order_changes_nothing():
    shuffled = small_events().sample(fraction=1.0, shuffle=True, seed=5)
    for split in ("train", "test"):
        ordered, other = small(split, max_requests=2), small(split, events=shuffled, max_requests=2)
        assert ordered.examples.equals(other.examples)
        assert ordered.contexts.equals(other.contexts)


future = st.lists(
    st.tuples(st.integers(0, 59), st.integers(0, 79), st.integers(1, 14)),
    min_size=1,
    max_size=40,
    unique=True,
)


@given(future)
@settings(max_examples=12, deadline=None)
def test_no_input_depends_on_the_future(rows):
    template = small_events().row(0, named=True)
    later = [
        template
        | {
            c.USER_ID: f"user{u:03d}",
            c.ITEM_ID: f"item{i:03d}",
            c.EVENT_TIME: moment,
            c.EVENT_DATE: moment.date(),
        }
        for u, i, days in rows
        for moment in [datetime.combine(CUT, datetime.min.time()) + timedelta(days=days, hours=9)]
    ]
    known = small_events().filter(pl.col(c.EVENT_DATE) <= CUT)
    other = small(events=pl.concat([known, pl.DataFrame(later, schema=known.schema)]))
    real = small()
    both = real.contexts.join(other.contexts, on=c.USER_ID, how="semi")
    assert both.equals(other.contexts.join(real.contexts, on=c.USER_ID, how="semi"))
    for task in ("season", "holiday"):
        said = [set(b.examples.filter(pl.col(c.TASK) == task)[c.SLOTS]) for b in (real, other)]
        assert len(said[0] | said[1]) <= 1  # one text for all, whatever was bought later
    words = set(other.examples.filter(pl.col(c.TASK) == "category")[c.FOCUS_TEXT])
    assert words <= set(small_catalog().frame[c.CATEGORY])


@pytest.mark.data
def test_the_real_day_has_the_targets_of_tasks_md():
    from datetime import date

    from sigma_core.data.catalog import CatalogBuilder
    from sigma_core.data.events import clean_events
    from sigma_core.data.sources import open_source
    from sigma_core.data.users import build_user_profiles

    source, day, config = open_source("complete_journey", None), date(2017, 10, 23), SigmaConfig()
    products = source.products()
    events, _ = clean_events(source.events(), products[c.ITEM_ID])
    catalog = CatalogBuilder(events, products, config.data, source.date_range()[0]).day(day)
    profiles = build_user_profiles(source.users(), events, day)
    given = (day, events, catalog, profiles, config)
    built = build_examples(*given, split="test", max_requests=3, offers=offers_of(source))
    general = built.examples.filter(pl.col(c.TASK) == "just_for_you")
    assert general.height == built.contexts.height == 1289
    assert general.select(pl.col(c.TARGETS).list.len().sum()).item() == 23_230
    assert built.dropped["targets_outside_catalog"] == 26_067 - 23_230
    assert set(built.examples[c.TASK]) == set(TASKS)
    assert set(built.examples.filter(pl.col(c.TASK) == "holiday")[c.FOCUS_TEXT]) == {"Halloween"}
