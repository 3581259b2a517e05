"""Counts and words learn to rank alone: in training some leaves rank their items without the vectors, in asking none does."""

from typing import Any

import pytest
import torch

from sigma_core.training import sft
from tests.training.test_dense import losses_of, small_trainer


def sharpness_of(monkeypatch: pytest.MonkeyPatch, share: float, training: bool) -> torch.Tensor:
    """Of each leaf of one batch."""
    trainer, data = small_trainer(vector_dropout=share)
    trainer.model.train(training)
    seen: list[torch.Tensor] = []
    plain = sft.Trainer.group_logits

    def told(self: sft.Trainer, *args: Any) -> torch.Tensor:
        seen.append(args[5])
        return plain(self, *args)

    monkeypatch.setattr(sft.Trainer, "group_logits", told)
    losses_of(trainer, data)
    return seen[0]


@pytest.mark.parametrize(("share", "training"), [(0.0, True), (0.9, False)])
def test_without_it_or_outside_training_every_leaf_has_its_vectors(
    share: float, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharpness = sharpness_of(monkeypatch, share, training)
    assert (sharpness > 0).all()


def test_a_leaf_without_vectors_teaches_the_counts_and_not_the_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sharpness = sharpness_of(monkeypatch, 0.5, True)
    assert 0 < (sharpness == 0).float().mean() < 1
    trainer, data = small_trainer(vector_dropout=0.999999, weight_catalog=0.0, weight_ntp=0.0)
    trainer.model.train()
    losses_of(trainer, data)["id"].backward()
    heads = trainer.model
    assert heads.item_activity.gain.grad is not None
    assert heads.item_activity.gain.grad.abs().sum() > 0
    assert heads.item_head.weight.grad is None or not heads.item_head.weight.grad.any()
