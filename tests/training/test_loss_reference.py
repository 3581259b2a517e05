"""The losses of a step against the same losses made one request at a time: which state is read, what it is asked, whose day.

The reference lays each request out alone and finds its tokens by their ids. The heads are the model's own (`tests/model/`); all that
follows is float64 and a loop.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sigma_core.data.item_activity import item_statistics, prefix_statistics
from sigma_core.instruction.collate import QUERY, START, Request, UserContext
from sigma_core.model.heads import Memory, Slots
from sigma_core.model.sigma import TensorBatch
from sigma_core.tokenization.item_features import prefix_match
from sigma_core.training.batches import StepInputs, TrainingSet, build_training_set, sample_steps
from sigma_core.training.sft import Trainer, make_trainer
from tests.training.small_training import CODES, HashEncoder, small_features, two_shards
from tests.training.test_dense import small_trainer

FEW = 5  # leaves that the catalogue-wide loss reads
WEIGHTS = {"weight_ntp": 0.3, "weight_id": 0.7, "weight_catalog": 0.2}


def two_day_step(length: int) -> tuple[Trainer, TrainingSet, StepInputs]:
    """A batch of users of two days, before a model of which no parameter is where it starts."""
    sizes = {
        "contexts_per_batch": 8,
        "branches_per_context": 3,
        "targets_per_branch": 3,
        "catalog_leaves": FEW,
    }
    plain, _ = small_trainer(length, **sizes, **WEIGHTS)
    features, codebooks = small_features(length)
    data = build_training_set(two_shards(), features.item_ids)
    trainer = make_trainer(plain.model, features, data, data, HashEncoder(), plain.config)  # type: ignore[arg-type]
    with torch.no_grad():
        trainer.model.prefix_match.copy_(torch.from_numpy(prefix_match(features, codebooks.codebooks[0])))
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for part in (*trainer.model.focus_gain.parameters(), *trainer.model.fit_gain.parameters()):
            part.mul_(0.03)  # words are random here: at full weight they leave some items no chance at all
    return trainer, data, next(sample_steps(data, features.prefix, trainer.config.training, 1, seed=5))


def double(values: torch.Tensor) -> np.ndarray:
    """What is told of one state, flat and in float64."""
    return values.detach().numpy().astype(np.float64).reshape(-1)


class Alone:
    """One request with one leaf or none, alone in a batch, on its user's day."""

    def __init__(self, trainer: Trainer, user: UserContext, request: Request, counts_NA: np.ndarray) -> None:
        self.model, self.items = trainer.model, trainer.item_tensors()
        self.path = request.leaves[0] if request.leaves else ()
        tree = trainer.collator([user], [[request]])
        batch = TensorBatch(tree, trainer.focus_vectors(tree.focus_texts), torch.device("cpu"))
        self.states_LD = self.model.read(batch, self.items.vectors_NE, trainer.lexical)[0]
        self.item_NS = torch.from_numpy(item_statistics(counts_NA))
        first_codes = self.items.prefixes_NP[:, 0].numpy()
        self.prefix_KS = torch.from_numpy(prefix_statistics(counts_NA, first_codes, CODES))
        self.memory: Memory = self.model.memory(batch, self.items, self.item_NS[None], torch.tensor([0]))
        special, prefix, in_leaf = tree.special_BL[0], tree.prefix_BL[0], tree.leaf_BL[0] == 1
        codes = [level * CODES + code for level, code in enumerate(self.path)]
        self.start = int(np.flatnonzero(special == START)[0])
        self.code_at = [int(np.flatnonzero(in_leaf & (prefix == code))[0]) for code in codes]
        self.query_at = int(np.flatnonzero(special == QUERY)[0]) if self.path else -1
        slots = Slots(torch.tensor([0]), 1)
        self.focus = self.model.focus(batch, batch.request_focus_RV, slots, self.states_LD[[self.start]])

    def code_scores(self, level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P of the codes of a level given those before, what of it is copied of each history item, and what is generated."""
        at = ([self.start] + self.code_at)[level]
        path = torch.tensor([[self.path[:level]]], dtype=torch.long)
        prior = self.prefix_KS[None]  # spoken at level 0 alone
        state = self.states_LD[at][None, None]
        found = self.model.prefix_scores(state, self.memory, level, path, self.focus, prior)
        return tuple(map(double, (found.log_prob_BQK.exp(), found.copied_BQJ, found.generated_BQK)))  # type: ignore[return-value]

    def ranked(self, sharpness: float) -> tuple[np.ndarray, dict[int, float]]:
        """h, and P of each item of the leaf's prefix given the prefix."""
        leaf = torch.tensor([[self.path]])
        state = self.states_LD[self.query_at][None, None]
        scores = self.model.item_scores(state, self.memory, leaf, self.focus)
        rows = np.flatnonzero((self.items.prefixes_NP.numpy() == self.path).all(axis=1))
        query = double(scores.query_BQE)
        logits = sharpness * self.items.vectors_NE[rows].detach().double().numpy() @ query
        logits += self.item_NS[rows].double().numpy() @ double(scores.activity_BQS)
        if self.focus is not None:
            match = self.focus.match(self.items.text_NT[rows])
            logits += scores.focus_BQ.item() * double(match)
            logits += scores.fit_BQ.item() * double(self.focus.fit(match))
        level = len(self.path) - 1
        whole, copied, generated = self.code_scores(level)
        code = self.path[level]
        found = generated[code] / whole[code] * softmax(logits)
        for item, share in zip(self.memory.row_BJ[0].tolist(), copied / whole[code], strict=True):
            found += share * (rows == item)
        return query, dict(zip(rows.tolist(), found.tolist(), strict=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


class Reference(NamedTuple):
    """The losses, and how many leaves they read."""

    ntp: float
    id: float
    catalog: float
    leaves: int


def reference(trainer: Trainer, data: TrainingSet, inputs: StepInputs) -> Reference:
    """`ntp`, `id` and `catalog` of the batch, one request and one leaf after another."""
    prefixes, tau = trainer.prefixes.numpy(), trainer.model.config.temperature
    asked = [
        (user, request, data.counts[day])
        for user, day, mine in zip(inputs.users, inputs.days, inputs.requests, strict=True)
        for request in mine
    ]
    targets = [inputs.target_item[inputs.target_request == number] for number in range(len(asked))]
    first, sigmas = [], []
    for user, request, counts in asked:
        found, _, _ = Alone(trainer, user, Request(request.instruction, request.focus), counts).code_scores(0)
        first.append(found)
        sigmas.append(max(float(np.std(np.sort(found)[-trainer.config.generation.sigma_top :])), 1e-3))
    typical = float(np.exp(np.mean(np.log(sigmas))))
    weights = [len(rows) ** -0.5 for rows in targets]
    sums = [
        w * np.log(p[prefixes[rows, 0]]).sum() for w, p, rows in zip(weights, first, targets, strict=True)
    ]
    ntp = -sum(sums) / sum(w * len(rows) for w, rows in zip(weights, targets, strict=True))

    deeper: list[list[float]] = [[] for _ in range(1, prefixes.shape[1])]
    inside: list[float] = []
    anywhere: list[float] = []
    leaves = 0
    vectors_NE = trainer.item_tensors().vectors_NE.detach().double().numpy()
    for (user, request, counts), rows, sigma in zip(asked, targets, sigmas, strict=True):
        sharpness = min(max(sigma / typical, 0.5), 2.0) / tau
        for path in request.leaves:
            alone = Alone(trainer, user, Request(request.instruction, request.focus, (path,)), counts)
            for level in range(1, len(path)):
                deeper[level - 1].append(-np.log(alone.code_scores(level)[0][path[level]]))
            query, chance = alone.ranked(sharpness)
            mine = [row for row in rows.tolist() if tuple(prefixes[row]) == path]
            assert min(chance[row] for row in mine) > 1e-7  # far above the losses' floor
            inside += [-np.log(chance[row]) for row in mine]
            if leaves < FEW:
                anywhere += [-np.log(softmax(vectors_NE @ query / tau)[row]) for row in mine]
            leaves += 1
    ntp += sum(float(np.mean(level)) for level in deeper)
    return Reference(float(ntp), float(np.mean(inside)), float(np.mean(anywhere)), leaves)


@pytest.mark.parametrize("length", [1, 2])
def test_a_step_costs_what_its_requests_cost_one_by_one(length: int) -> None:
    trainer, data, inputs = two_day_step(length)
    assert set(inputs.days.tolist()) == {0, 1}
    assert np.abs(data.counts[0] - data.counts[1]).max() > 3
    assert {bool(request.focus) for mine in inputs.requests for request in mine} == {True, False}
    assert all(len(user.favorite_rows) for user in inputs.users)
    assert np.bincount(inputs.target_request).max() > 2
    expected = reference(trainer, data, inputs)
    assert expected.leaves > 2 * FEW
    found = trainer.losses(inputs)
    for name in ("ntp", "id", "catalog"):
        assert found[name].item() == pytest.approx(getattr(expected, name), rel=2e-5), name


def test_the_loss_is_the_sum_by_weight() -> None:
    trainer, _, inputs = two_day_step(1)
    found = trainer.losses(inputs)
    expected = 0.3 * found["ntp"] + 0.7 * found["id"] + 0.2 * found["catalog"]
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_code_is_predicted_before_it_is_read(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other codes at a level change the predictions of later levels, and neither its own nor those before it."""
    trainer, _, inputs = two_day_step(3)

    def predictions(step: int) -> list[torch.Tensor]:
        """log P (X, K) of each level, with each leaf's code of `level` turned by `step`."""
        seen: list[torch.Tensor] = []

        def told(log_probs_XK: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            seen.append(log_probs_XK.detach())
            return log_probs_XK.sum()

        def turned(leaf: tuple[int, ...]) -> tuple[int, ...]:
            return tuple((code + step * (at == level)) % CODES for at, code in enumerate(leaf))

        monkeypatch.setattr("sigma_core.model.losses.prefix_nll", told)
        asked = [[replace(r, leaves=tuple(map(turned, r.leaves))) for r in mine] for mine in inputs.requests]
        read = trainer._read(replace(inputs, requests=asked))
        starts = trainer._starts(read)
        trainer._first_level_nll(inputs, starts)
        trainer._leaves(read, starts)
        return seen

    one, other = predictions(0), predictions(1)
    assert len(one) == 3
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True)]
    assert same == [at <= level for at in range(3)]
