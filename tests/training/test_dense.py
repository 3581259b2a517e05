"""Dense supervision: who is asked for what, that nobody sees the answer, what the loss is worth, and that weight 0 is free."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from sigma_core.instruction.collate import Collator, Request, UserContext
from sigma_core.model.sigma import ModelShape, SigmaModel, TensorBatch
from sigma_core.training import sft
from sigma_core.training.batches import TrainingSet, build_training_set, sample_steps
from sigma_core.training.dense import dense_loss, dense_targets
from tests.model_world import FakeWords, tiny_world
from tests.training.small_training import CODES, HashEncoder, small_features, small_shards, training_config

PREFIXES = np.array([[0], [0], [1], [2], [3]])


def context(name: str, recent_oldest_first: list[int], favorites: list[int]) -> UserContext:
    """A user whose statistics do not matter."""
    recent, favorite = (
        np.array(recent_oldest_first[::-1], dtype=np.int64),
        np.array(favorites, dtype=np.int64),
    )
    stats = np.ones((8, 4), dtype=np.float32)
    return UserContext(name, "old", recent, stats[: len(recent)], favorite, stats[: len(favorite)])


def test_a_position_is_asked_for_what_is_told_after_it_and_was_not_told_before() -> None:
    told = context("u", [3, 0, 2, 1], favorites=[0])
    tree = Collator(FakeWords(), PREFIXES, 4, prompt_favorites=2)([told], [[Request("go")]])
    found = dense_targets(tree)
    item_at = {int(tree.item_BL[0, at]): int(at) for at in np.flatnonzero(tree.role_BL[0] == 0)}
    assert found.state_X2.tolist() == [
        [0, item_at[3]],
        [0, item_at[0]],
        [0, item_at[2]],
    ]  # 1 has no successor
    # 0 is a favourite: the prompt has told it, so nobody is asked for it
    assert found.later_T2.tolist() == [[0, 2], [0, 1], [1, 2], [1, 1], [2, 1]]
    assert found.weight_T == pytest.approx([2**-0.5] * 4 + [1.0])
    assert found.new_Y2.tolist() == [[0, item_at[item]] for item in (3, 2, 1)]
    assert found.item_Y.tolist() == [3, 2, 1]


def test_a_prompt_that_tells_nothing_new_asks_nothing() -> None:
    users = [context("u", [0, 1], favorites=[0, 1]), context("v", [], favorites=[])]
    tree = Collator(FakeWords(), PREFIXES, 4, prompt_favorites=2)(users, [[Request("go")]] * 2)
    found = dense_targets(tree)
    assert not any(len(part) for part in found)


def test_the_states_that_are_asked_do_not_see_the_answer() -> None:
    world = tiny_world(prefix_length=2)
    lists = [3, 7, 11, 5], [3, 7, 11, 9], [3, 7, 20, 2]
    users = [context("u", items, favorites=[1]) for items in lists]
    batch = TensorBatch(world.collator(users, [[Request("go")]] * 3), torch.zeros(0, 8), torch.device("cpu"))
    states = world.model.read(batch, world.table.tensors.vectors_NE, world.recommender.lexical)
    found = dense_targets(batch.tree)
    of = {(u, int(batch.tree.item_BL[u, at])): int(at) for u, at in found.new_Y2.tolist()}
    # the state at item 7 is asked for 11, 5 (9; 20, 2) and is the same whatever comes
    torch.testing.assert_close(states[:1, of[0, 7]].expand(3, -1), states[:, of[0, 7]])
    # the state at the last prefix token of the fourth item knows that prefix and not the item
    assert batch.tree.prefix_BL[0, of[0, 5] - 1] >= 0 > batch.tree.item_BL[0, of[0, 5] - 1]
    same = [
        u for u in (0, 1) if batch.tree.prefix_BL[u, of[0, 5] - 2] == batch.tree.prefix_BL[0, of[0, 5] - 2]
    ]
    torch.testing.assert_close(states[same, of[0, 5] - 2], states[[0] * len(same), of[0, 5] - 2])


def small_trainer(length: int = 1, **training: Any) -> tuple[sft.Trainer, TrainingSet]:
    """A trainer whose prompts tell one favourite, so that most recent purchases are news."""
    torch.manual_seed(3)
    settings = training_config("mini", **training)
    settings = settings.model_copy(
        update={"instruction": settings.instruction.model_copy(update={"prompt_favorites": 1})}
    )
    features, _ = small_features(length)
    shape = ModelShape(
        features.text.shape[1], features.id.shape[1], 0, length, CODES, 384, features.text.shape[1]
    )
    data = build_training_set(small_shards(), features.item_ids)
    model = SigmaModel(settings.model, shape).eval()
    return sft.make_trainer(model, features, data, data, HashEncoder(), settings), data  # type: ignore[arg-type]


def losses_of(trainer: sft.Trainer, data: TrainingSet) -> dict[str, torch.Tensor]:
    prefixes = trainer.prefixes.numpy()
    (inputs,) = sample_steps(data, prefixes, trainer.config.training, 1, seed=5)
    return trainer.losses(inputs)


@pytest.mark.parametrize("length", [1, 3])
def test_weight_zero_runs_none_of_it_and_no_weight_changes_the_other_losses(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = losses_of(*small_trainer(length, weight_dense=0.5))

    def never(*_: object) -> torch.Tensor:
        raise AssertionError("dense supervision ran at weight 0")

    monkeypatch.setattr(sft, "dense_loss", never)
    off = losses_of(*small_trainer(length, weight_dense=0.0))
    assert set(on) - set(off) == {"dense"}
    for name in ("ntp", "id", "catalog"):
        assert torch.equal(on[name], off[name])
    assert torch.equal(on["loss"], off["loss"] + 0.5 * on["dense"])
    on["dense"].backward()


def test_heads_that_know_nothing_cost_the_logarithm_of_what_there_is_to_choose_from() -> None:
    trainer, data = small_trainer(weight_dense=1.0)
    model = trainer.model
    with torch.no_grad():
        for head in (model.prefix_head, model.item_head, model.prefix_activity, model.item_activity):
            for parameter in head.parameters():
                parameter.zero_()
    inputs = next(sample_steps(data, trainer.prefixes.numpy(), trainer.config.training, 1, seed=5))
    step = trainer._read(inputs)
    new = dense_targets(step.batch.tree).item_Y
    assert len(new) > 5
    group = np.bincount(trainer.group_of.numpy())[trainer.group_of.numpy()[new]]
    expected = math.log(CODES) + np.log(group).mean()
    assert dense_loss(trainer, step).item() == pytest.approx(expected, rel=1e-5)


def test_bfloat16_is_of_the_backbone_alone_and_changes_losses_by_its_rounding() -> None:
    whole, half = (
        losses_of(*small_trainer(weight_dense=0.5, dtype=dtype)) for dtype in ("float32", "bfloat16")
    )
    for name, value in whole.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() != value.item()
        assert half[name].item() == pytest.approx(value.item(), rel=0.02)
