"""A shard: the cut lies a horizon before its day, and what is saved is what is loaded."""

from datetime import timedelta

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore
from sigma_core.data.item_activity import ACTIVITY_SCHEMA
from sigma_core.instruction.phrases import load_phrases
from sigma_core.instruction.shards import SftShard, build_shard
from sigma_core.instruction.tasks import TASKS
from tests.instruction.small_world import CONFIG, CUT, small_catalog, small_events, small_profiles
from tests.toy_world import SMALL_START

DAY = CUT + timedelta(days=7)


def shard(day=DAY, events=None, config=CONFIG) -> SftShard:
    cut = day - timedelta(days=7)
    return build_shard(
        day, small_events() if events is None else events, small_catalog(cut), small_profiles(cut), config
    )


def test_cut_and_window():
    built = shard()
    assert set(built.contexts[c.CUT_DATE]) == set(built.examples[c.CUT_DATE]) == {CUT}
    assert set(built.examples[c.TARGET_END]) == {DAY}
    bought = small_events().filter(pl.col(c.EVENT_DATE).is_between(CUT, DAY, closed="right"))
    pairs = built.examples.explode(c.TARGETS).select(c.USER_ID, pl.col(c.TARGETS).alias(c.ITEM_ID))
    assert pairs.join(bought, on=[c.USER_ID, c.ITEM_ID], how="anti").is_empty()


def test_users_are_chosen_by_hash_of_user_and_day():
    built, next_day = shard(), shard(DAY + timedelta(days=3))
    assert built.contexts.height == next_day.contexts.height == CONFIG.instruction.users_per_shard
    assert set(built.contexts[c.USER_ID]) != set(next_day.contexts[c.USER_ID])
    assert set(built.examples[c.USER_ID]) == set(built.contexts[c.USER_ID])
    assert built.dropped["users_over_limit"] > 0
    assert built.dropped["users_without_history"] == 0
    assert built.contexts[c.RECENT_ITEMS].list.len().min() > 0


def test_nothing_unseen_gets_in():
    held_out = {p.text for book in load_phrases() for p in book.phrases if p.is_held_out}
    examples = shard().examples
    assert not held_out & set(examples[c.FOCUS_TEXT])
    assert not any(f'"{phrase}"' in slots for phrase in held_out for slots in examples[c.SLOTS].unique())
    for task, wording in examples.select(c.TASK, c.WORDING).unique().iter_rows():
        assert wording not in TASKS[task].held_out_wordings()
    requests = examples.filter(pl.col(c.TASK).is_in(["query", "category"])).group_by(c.USER_ID, c.TASK).len()
    assert requests["len"].max() == CONFIG.instruction.max_requests_per_task


def test_days_after_the_shard_change_nothing():
    assert shard().digest() == shard(events=small_events().filter(pl.col(c.EVENT_DATE) <= DAY)).digest()
    fewer = small_events().filter(pl.col(c.EVENT_DATE) <= DAY - timedelta(days=1))
    assert shard().digest() != shard(events=fewer).digest()


def test_same_seed_same_shard_other_seed_other_users():
    other = CONFIG.model_copy(update={"runtime": CONFIG.runtime.model_copy(update={"seed": 18})})
    assert shard().digest() == shard().digest()
    assert set(shard(config=other).contexts[c.USER_ID]) != set(shard().contexts[c.USER_ID])


def test_round_trip_through_the_store(tmp_path):
    store, built = ArtifactStore(tmp_path), shard()
    manifest = store.write("sft_shards", str(DAY), built)
    loaded = store.read(SftShard, "sft_shards", str(DAY))
    assert loaded.contexts.equals(built.contexts)
    assert loaded.examples.equals(built.examples)
    assert loaded.dropped == built.dropped
    assert manifest["digest"] == loaded.digest()


def test_summary_counts_every_task():
    built = shard()
    summary = built.summary()
    assert set(summary["examples_by_task"]) == set(TASKS)
    assert sum(summary["examples_by_task"].values()) == summary["examples"] == built.examples.height
    assert summary["targets"] == built.examples.select(pl.col(c.TARGETS).list.len().sum()).item()
    assert summary["users"] == 24
    assert summary["dropped"]["targets_over_limit"] > 0


def test_a_day_before_any_history_gives_an_empty_shard():
    early = shard(SMALL_START)
    assert early.contexts.height == early.examples.height == 0
    assert early.summary()["examples_by_task"]["season"] == 0


def test_a_frame_of_other_columns_is_refused():
    with pytest.raises(ValueError, match="needed columns"):
        SftShard(shard().contexts.drop(c.PROFILE_TEXT), shard().examples, shard().activity)


def test_activity_is_the_catalog_of_the_cut():
    built = shard()
    assert built.activity.columns == list(ACTIVITY_SCHEMA)
    assert built.activity[c.ITEM_ID].n_unique() == built.activity.height > 0
    known = set(built.activity[c.ITEM_ID])
    assert all(set(items) <= known for items in built.examples[c.TARGETS])
