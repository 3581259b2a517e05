"""Prefixes of two and of four codes from training to a list: tokens, losses, beam and subsets all follow the codebooks."""

import numpy as np
import pytest

from sigma_core import columns as c
from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request
from sigma_core.instruction.tasks import render
from sigma_core.serving.engine import Engine
from sigma_core.serving.item_index import build_item_index
from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training.lora import train_lora
from sigma_core.training.sft import train_base
from tests.instruction.small_world import small_catalog
from tests.training.small_training import HashEncoder, small_features, small_shards, training_config


@pytest.mark.parametrize("length", [2, 4])
def test_every_step_follows_the_prefix_length(length: int) -> None:
    config = training_config("mini", base_steps=6, lora_steps=2)
    features, codebooks = small_features(length)
    given = (list(small_shards()), features, codebooks, HashEncoder(), config, NullTracker(), no_progress)
    base = train_base(*given)  # type: ignore[arg-type]
    checkpoint = train_lora(base, *given)  # type: ignore[arg-type]
    assert np.isfinite(base.figures["loss_last"])
    assert base.facts()["beams_valid"] == checkpoint.facts()["beams_valid"] == 1.0
    index = build_item_index(base, checkpoint, features)
    assert index.prefixes.shape == (len(features.item_ids), length)
    checkpoint.catalog_weight = 0.25  # as if the validation users had wanted it: used where it is asked for
    settings = config.generation.model_copy(update={"catalog_fusion": True})
    for weight, asked in ((0.0, config), (0.25, config.model_copy(update={"generation": settings}))):
        engine = Engine(base, checkpoint, index, small_catalog(), HashEncoder(), asked)  # type: ignore[arg-type]
        assert engine.recommender.catalog_weight == weight
    users = engine.contexts(small_shards()[0].contexts.head(3))
    owned = users[0].favorite_rows
    asks = [[Ask(Request(render("query", 0, {"phrase": "soda"}), "soda"), owned)] for _ in users]
    lists = engine.rank(users, asks, 10)
    code_of = dict(zip(features.item_ids, map(tuple, features.prefix.tolist()), strict=True))
    for ranked in lists:
        assert (
            len({r.row for r in ranked}) == len(ranked) > 0
        )  # at length 4 six prefixes hold about six items
        assert all(r.prefix == code_of[index.item_ids[r.row]] for r in ranked)
        assert not {r.row for r in ranked} & set(owned.tolist())
    assert small_catalog().frame[c.ITEM_ID].n_unique() == len(index.item_ids)
