"""Training on cross-fitted v_ID: each batch reads the items as the users outside its fold make them."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import torch

from sigma_core.grounding.cross_fitting import EVERYONE, CrossFitted, FoldedIds, fold_of
from sigma_core.model.heads import ItemTensors
from sigma_core.tokenization.item_features import ItemFeatures
from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training import sft
from sigma_core.training.batches import build_training_set, sample_steps
from sigma_core.training.lora import train_lora
from sigma_core.training.sft import make_trainer, train_base
from tests.instruction.small_world import CUT
from tests.training.small_training import HashEncoder, small_features, small_shards, training_config
from tests.training.test_dense import small_trainer

FOLDS = 2


def folded_features(days: int = 1) -> ItemFeatures:
    """Features whose v_ID looks `days` past the cut; without a fold it is turned around, and the first item's is unknown."""
    features, _ = small_features()
    known = np.stack([features.has_id] * FOLDS)
    known[:, 0] = False
    others = CrossFitted(-np.stack([features.id] * FOLDS), known, CUT + timedelta(days=days))
    return replace(features, folded=FoldedIds(others, np.arange(len(features.item_ids))))


def test_a_batch_reads_the_items_of_its_fold() -> None:
    plain, _ = small_trainer()
    features, config = folded_features(), plain.config
    data = build_training_set(small_shards(), features.item_ids, features.folded)
    assert [u.fold for u in data.users] == [fold_of(u.context.user_id, FOLDS) for u in data.users]
    trainer = make_trainer(plain.model, features, data, data, HashEncoder(), config)  # type: ignore[arg-type]
    everyone, other = trainer.item_tensors(), trainer.item_tensors(0)
    torch.testing.assert_close(everyone.vectors_NE, plain.item_tensors().vectors_NE)
    has = torch.as_tensor(features.has_id)
    torch.testing.assert_close(other.vectors_NE[~has], everyone.vectors_NE[~has])
    assert (other.vectors_NE[has] - everyone.vectors_NE[has]).abs().amax(dim=1).min() > 1e-4
    inputs = next(sample_steps(data, trainer.prefixes.numpy(), config.training, 1, seed=5))
    assert inputs.fold in (0, 1)
    read = trainer._read(inputs)
    torch.testing.assert_close(read.items.vectors_NE, trainer.item_tensors(inputs.fold).vectors_NE)


def test_a_shard_that_v_id_did_not_see_trains_on_v_id_itself() -> None:
    features = folded_features(days=0)
    data = build_training_set(small_shards(), features.item_ids, features.folded)
    assert {user.fold for user in data.users} == {EVERYONE}


def test_base_and_adapter_train_and_are_probed_on_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = training_config("mini", base_steps=4, lora_steps=2)
    _, codebooks = small_features()
    given = (
        list(small_shards()),
        folded_features(),
        codebooks,
        HashEncoder(),
        config,
        NullTracker(),
        no_progress,
    )
    read: list[int] = []
    plain = sft.Trainer.item_tensors

    def told(self: sft.Trainer, fold: int = EVERYONE) -> ItemTensors:
        read.append(fold)
        return plain(self, fold)

    monkeypatch.setattr(sft.Trainer, "item_tensors", told)
    base = train_base(*given)  # type: ignore[arg-type]
    checkpoint = train_lora(base, *given)  # type: ignore[arg-type]
    assert set(read) == {0, 1}  # training, its loss on probe users and their lists alike
    assert np.isfinite(base.figures["loss_last"])
    assert base.facts()["beams_valid"] == checkpoint.facts()["beams_valid"] == 1.0
