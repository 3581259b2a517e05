"""What the day's adapter carries, and which leaves the catalogue-wide loss reads."""

from typing import Any

import numpy as np
import pytest
import torch

from sigma_core.model.heads import Gains, Pointer
from sigma_core.training.batches import sample_steps
from sigma_core.training.checkpoint import HEADS
from tests.training.test_dense import losses_of, small_trainer


def test_every_gain_and_pointer_is_trained_by_the_day() -> None:
    trainer, _ = small_trainer()
    named = {name for name, module in trainer.model.named_children() if isinstance(module, Gains | Pointer)}
    assert named <= set(HEADS)
    assert set(HEADS) <= {name.split(".")[0] for name, _ in trainer.model.named_parameters()}


def test_the_catalogue_wide_loss_reads_leaves_of_the_first_user_and_of_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = 3
    trainer, data = small_trainer(catalog_leaves=few)
    (inputs,) = sample_steps(data, trainer.prefixes.numpy(), trainer.config.training, 1, seed=5)
    read: list[tuple[Any, ...]] = []

    def note(*given: Any) -> torch.Tensor:
        read.append(given)
        return torch.zeros((), requires_grad=True)

    monkeypatch.setattr("sigma_core.model.losses.catalog_nll", note)
    losses_of(trainer, data)
    query_FE, _, leaf_T, item_T, _ = read[0]
    last = int(inputs.leaf_target_leaf.max())
    assert last >= few
    wanted = [round(place) for place in np.linspace(0, last, few)]
    assert len(query_FE) == few
    for number, leaf in enumerate(wanted):
        assert (
            item_T[leaf_T == number].tolist()
            == inputs.leaf_target_item[inputs.leaf_target_leaf == leaf].tolist()
        )


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
