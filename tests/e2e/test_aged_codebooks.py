"""Aged codebooks on the tiny root: what is fitted when, and that one thing alone differs from a fresh refit."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sigma_assets.benchmarks.ablation import AblationOptions
from sigma_assets.benchmarks.aged_codebooks import aged_results, with_aged_codebooks
from sigma_assets.benchmarks.arm_training import NothingToTrainError
from sigma_assets.benchmarks.materials import load_materials
from sigma_assets.world import World
from sigma_core import columns as c
from tests.assets.roots import Quiet
from tests.e2e.slice import DAY

OPTIONS = AblationOptions(seeds=(0,), steps=2, users=8, threads=1)


def test_older_codebooks_know_the_items_of_their_day_and_nothing_else_changes(made: tuple[Path, str]) -> None:
    world, fresh = World.open(made[0]), load_materials(made[0], DAY)
    aged = with_aged_codebooks(world, fresh, 19)
    refit_day = fresh.day.replace(day=1) - timedelta(days=1)
    sold = fresh.events.filter(pl.col(c.EVENT_DATE) <= refit_day - timedelta(days=19))[c.ITEM_ID]
    assert set(aged.grounding.codebooks.item_ids) <= set(sold)
    assert aged.grounding.codebooks.digest() != fresh.grounding.codebooks.digest()
    assert aged.grounding.encoder is fresh.grounding.encoder
    assert aged.catalog is fresh.catalog
    assert len(set(aged.digests) - set(fresh.digests)) == 1  # so that no cached model is taken for another
    same = with_aged_codebooks(world, fresh, 0).grounding.codebooks
    assert np.array_equal(same.codes, fresh.grounding.codebooks.codes)
    with pytest.raises(NothingToTrainError, match="had not begun"):
        with_aged_codebooks(world, fresh, 90)


def test_an_age_has_its_recall_and_the_rest_their_reason(made: tuple[Path, str], tmp_path: Path) -> None:
    found = aged_results(made[0], DAY, tmp_path / "aged.json", OPTIONS, Quiet(), ages=(0, 90))
    by_task = found["aged_0"]
    assert "just_for_you" in by_task
    for figures in by_task.values():  # codebooks of the refit's own day: the same model, so no difference
        assert figures["fresh_minus_aged"]["mean"] == 0
        assert figures["recall@20"] == figures["fresh"]
    assert "had not begun" in found["aged_90"]["skipped"]
    assert found["aged_settings"]["measured"] == ["aged_0"]
