"""What the day's adapter carries, and the catalogue-wide loss over drawn items."""

import pytest
import torch

from sigma_core.model.heads import Gains, Pointer
from sigma_core.training.checkpoint import FROZEN, HEADS
from tests.training.test_dense import losses_of, small_trainer


def test_every_gain_and_pointer_is_trained_by_the_day_or_frozen_for_a_reason() -> None:
    trainer, _ = small_trainer()
    named = {name for name, module in trainer.model.named_children() if isinstance(module, Gains | Pointer)}
    assert named == (named & set(HEADS)) | set(FROZEN)
    assert not set(HEADS) & set(FROZEN)
    assert set(HEADS) <= {name.split(".")[0] for name, _ in trainer.model.named_parameters()}


def test_drawn_negatives_teach_the_same_parameters_and_popular_items_are_drawn_more_often() -> None:
    trainer, data = small_trainer(catalog_negatives=50)
    torch.manual_seed(0)
    drawn = losses_of(trainer, data)["catalog"]
    exact = losses_of(*small_trainer())["catalog"]
    assert drawn.item() == pytest.approx(exact.item(), rel=0.25)
    drawn.backward()
    assert trainer.model.item_head.weight.grad is not None
    sold = trainer.activity.item_UNS[..., 0].mean(dim=0)
    assert trainer.chance_N.sum().item() == pytest.approx(1.0)
    assert trainer.chance_N[sold.argmax()] > trainer.chance_N[sold.argmin()]
