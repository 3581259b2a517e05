"""A day's item index and user lists, from a training of the small world: every row belongs to the item it is named by."""

import numpy as np
import polars as pl
import pytest
import torch

from sigma_core import columns as c
from sigma_core.config import SigmaConfig
from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request
from sigma_core.instruction.tasks import render
from sigma_core.model.sigma import item_streams
from sigma_core.serving.engine import Engine
from sigma_core.serving.item_index import ItemIndex, build_item_index
from sigma_core.serving.user_to_item import build_user_to_item_index
from sigma_core.tokenization.item_features import ItemFeatures
from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase, without_adapter
from sigma_core.training.sft import train_base
from tests.instruction.small_world import small_catalog
from tests.training.small_training import HashEncoder, small_features, small_shards, training_config

CONFIG = training_config("mini", base_steps=2)
Day = tuple[SigmaBase, LoraCheckpoint, ItemFeatures, ItemIndex]


@pytest.fixture(scope="module")
def day() -> Day:
    features, codebooks = small_features()
    given = (list(small_shards()), features, codebooks, HashEncoder(), CONFIG, NullTracker(), no_progress)
    base = train_base(*given)  # type: ignore[arg-type]
    checkpoint = without_adapter(base)
    return base, checkpoint, features, build_item_index(base, checkpoint, features)


def engine_of(day: Day, config: SigmaConfig = CONFIG) -> Engine:
    base, checkpoint, _, index = day
    return Engine(base, checkpoint, index, small_catalog(), HashEncoder(), config)  # type: ignore[arg-type]


def test_rows_are_sorted_by_prefix_and_hold_what_belongs_to_their_item(day: Day) -> None:
    base, _, features, index = day
    assert index.item_ids != features.item_ids, "an order of its own"
    assert sorted(index.item_ids) == features.item_ids
    keys = [(*prefix, item) for prefix, item in zip(index.prefixes.tolist(), index.item_ids, strict=True)]
    assert keys == sorted(keys)
    with torch.inference_mode():
        fused = base.build_fusion()(item_streams(features)).numpy()
    for row, item in enumerate(index.item_ids):
        at = features.item_ids.index(item)
        np.testing.assert_array_equal(index.vectors[row], fused[at])
        np.testing.assert_array_equal(index.text[row], features.match()[at])
        np.testing.assert_array_equal(index.prefixes[row], features.prefix[at])


def test_items_are_ranked_at_the_temperature_that_training_chose_unless_one_is_set(day: Day) -> None:
    base, checkpoint, features, index = day
    chosen = LoraCheckpoint(**{**vars(checkpoint), "apf_temperature": 0.037})
    engine = engine_of((base, chosen, features, index))
    assert engine.recommender.apf_temperature == 0.037
    assert engine.recommender.typical_sigma == checkpoint.typical_sigma
    settings = CONFIG.generation.model_copy(update={"apf_temperature": 0.2})
    told = engine_of((base, chosen, features, index), CONFIG.model_copy(update={"generation": settings}))
    assert told.recommender.apf_temperature == 0.2


def test_a_users_list_is_what_the_engine_ranks_by_item_id(day: Day) -> None:
    base, checkpoint, features, index = day
    contexts = small_shards()[0].contexts.head(5)
    owned = contexts.select(c.USER_ID)
    made, counted = build_user_to_item_index(
        base, checkpoint, index, small_catalog(), contexts, owned, HashEncoder(), CONFIG, no_progress
    )  # type: ignore[arg-type]
    assert counted == {"users_searched": 5, "users_with_kept_prefixes": 0}
    engine, tasks = engine_of(day), CONFIG.serving.u2i_tasks
    users = engine.contexts(contexts)
    asks = [[Ask(Request(render(task, 0, {}))) for task in tasks] for _ in users]
    ranked = engine.rank(
        users, asks, CONFIG.serving.u2i_top_n, collapse=CONFIG.generation.collapse_text_groups
    )
    code_of = dict(zip(features.item_ids, features.prefix.tolist(), strict=True))
    assert made.frame.height == sum(map(len, ranked)) > 0
    for number, (user, task) in enumerate((user.user_id, task) for user in users for task in tasks):
        mine = made.frame.filter((pl.col(c.USER_ID) == user) & (pl.col(c.TASK) == task))
        assert mine[c.RANK].to_list() == list(range(1, len(ranked[number]) + 1))
        assert mine[c.ITEM_ID].to_list() == [index.item_ids[r.row] for r in ranked[number]]
        assert mine[c.SCORE].to_list() == pytest.approx([r.score for r in ranked[number]], rel=1e-5)
        chance = [r.prefix_probability for r in ranked[number]]
        assert mine[c.PREFIX_PROBABILITY].to_list() == pytest.approx(chance, rel=1e-5)
        assert mine[c.PREFIX].to_list() == [code_of[item] for item in mine[c.ITEM_ID]]
