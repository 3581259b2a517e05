"""One step of the encoder's training: what is no negative, what the teacher weighs, how many pairs a view gives."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from sigma_core.config import GroundingConfig
from sigma_core.grounding.losses import info_nce_rows, similarity_kl
from sigma_core.grounding.pair_plan import PairPlan, ViewPairs
from sigma_core.grounding.trainer import PairBatch, Trainer
from sigma_core.tracking import NullTracker

NUM = 6  # texts of the pool; text n has row n of v_ID
FACTORS = np.random.default_rng(0).normal(size=(NUM, 3)).astype(np.float32)


def view_pairs(*pairs: tuple[int, int]) -> ViewPairs:
    """Pairs of texts that are items of their own row."""
    anchor, positive = np.array(pairs, dtype=np.int64).T
    return ViewPairs(anchor, positive, anchor, positive)


def trainer(
    train: dict[str, ViewPairs], known: tuple[tuple[int, int], ...] = (), **settings: object
) -> Trainer:
    keys = np.array(sorted(a * NUM + p for a, p in known), dtype=np.int64)
    plan = PairPlan([f"text {n}" for n in range(NUM)], np.ones(NUM, dtype=bool), train, {}, keys, 0)
    config = GroundingConfig.model_validate(settings)
    return Trainer(plan, FACTORS, config, 3, NullTracker(), lambda *_: None)


def batch_of(*pairs: tuple[int, int]) -> PairBatch:
    rows = view_pairs(*pairs)
    return PairBatch(
        rows.anchor, rows.positive, rows.anchor_id, rows.positive_id, np.zeros(len(pairs), dtype=np.int64)
    )


def contrastive(batch: PairBatch, known: tuple[tuple[int, int], ...] = ()) -> float:
    """L_CL of a batch in which all texts have one vector: each softmax is even over what it compares."""
    one = torch.tensor([[1.0, 0.0]]).expand(len(batch.anchor), 2)
    return float(trainer({"search": view_pairs((0, 1))}, known)._loss(batch, one, one)[0])


def test_a_pair_that_is_known_is_no_negative_and_any_other_is() -> None:
    """Of four softmaxes over two even pairs, the two that held (0, 3) are left with their own pair: log 1 instead of log 2."""
    batch = batch_of((0, 1), (2, 3))
    assert contrastive(batch) == pytest.approx(math.log(2))
    assert contrastive(batch, known=((0, 3),)) == pytest.approx(math.log(2) / 2)
    assert contrastive(batch, known=((0, 3), (2, 1))) == pytest.approx(0.0)
    assert contrastive(batch, known=((0, 4), (3, 0))) == pytest.approx(math.log(2)), "known, but not here"


def test_the_same_text_is_no_negative_of_itself() -> None:
    assert contrastive(batch_of((0, 1), (2, 1))) == pytest.approx(0.0)  # one positive twice
    assert contrastive(batch_of((0, 1), (2, 0))) == pytest.approx(math.log(2) / 2)  # an anchor as a positive


PAIRS = ((0, 1), (2, 3), (4, 5))
BASE = functional.normalize(torch.randn(NUM, 4, generator=torch.Generator().manual_seed(1)), dim=1)


def fresh_head() -> torch.nn.Linear:
    torch.manual_seed(2)
    return torch.nn.Linear(4, 4, bias=False)


def gradient_of_a_step(kd_weight: float) -> torch.Tensor:
    """What the one step of a projection training follows; its batch is all of `PAIRS`."""
    head = fresh_head()
    one = {"search": view_pairs(*PAIRS)}
    settings = {"kd_weight": kd_weight, "batch_size": len(PAIRS), "head_steps": 1}
    trainer(one, **settings, view_weights={"search": 1.0}).run_head(head, BASE)
    assert head.weight.grad is not None
    return head.weight.grad


def test_a_step_follows_l_cl_plus_kd_weight_times_l_kd() -> None:
    head, config = fresh_head(), GroundingConfig()
    anchor, positive = (torch.tensor(ends) for ends in zip(*PAIRS, strict=True))
    vectors = functional.normalize(head(BASE), dim=1)
    everyone = torch.ones(3, dtype=torch.bool)
    text, ids = config.temperature_text, torch.from_numpy(FACTORS)
    drawn = info_nce_rows(vectors[anchor], vectors[positive], text, torch.ones(3, 3, dtype=torch.bool)).mean()
    told = similarity_kl(
        vectors[anchor], vectors[positive], ids[anchor], ids[positive], has_anchor_id_B=everyone,
        has_positive_id_B=everyone, temperature_text=text, temperature_id=config.temperature_id,
    )  # fmt: skip
    of_cl = torch.autograd.grad(drawn, head.weight, retain_graph=True)[0]
    of_kd = torch.autograd.grad(told, head.weight)[0]
    assert of_kd.abs().max() > 0.01
    for weight in (0.0, 1.0, 3.0):
        torch.testing.assert_close(gradient_of_a_step(weight), of_cl + weight * of_kd, atol=1e-5, rtol=1e-4)


def test_views_give_pairs_by_their_shares_and_use_up_all_before_one_comes_again() -> None:
    train = {
        "collaborative": view_pairs(*((n % NUM, (n + 1) % NUM) for n in range(7))),
        "search": view_pairs(*((n % NUM, (n + 2) % NUM) for n in range(12))),
    }
    shares = {"collaborative": 0.7, "search": 0.2, "knowledge": 0.1}  # the last has no pairs: 7 to 2
    made = trainer(train, batch_size=9, view_weights=shares)
    batches = list(made._batches("head", 6))
    for batch in batches:
        assert np.bincount(batch.view).tolist() == [7, 2]
    searched = [
        pair for b in batches for pair in zip(b.anchor[7:].tolist(), b.positive[7:].tolist(), strict=True)
    ]
    assert sorted(searched) == sorted((n % NUM, (n + 2) % NUM) for n in range(12))
