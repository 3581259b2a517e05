"""Fits a network to sequences: epochs over short batches, Adam, and an average of the weights that is what is kept.

The learning rate is constant after a short warm-up, so that stopping after any number of epochs needs no schedule of its own.
Knows no model and no protocol. Our choice.

Shape legend: B sequences, N items.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sigma_core.benchmarks.leave_one_out.checkpoint import load_checkpoint, save_checkpoint
from sigma_core.benchmarks.leave_one_out.data import IntArray, Split
from sigma_core.benchmarks.leave_one_out.ranks import Score, ScoreBlock, gains, target_ranks
from sigma_core.benchmarks.leave_one_out.sequence import Batch, batches, make_batch
from sigma_core.benchmarks.leave_one_out.settings import Training

WARM_UP_STEPS = 100
CRITERION = "ndcg@10"


class Network(Protocol):
    """What the trainer needs of a model; every one is an `nn.Module` too."""

    def loss(self, batch: Batch) -> Tensor:
        """Scalar loss of a batch, every position predicting its successor."""

    def scores(self, batch: Batch) -> Tensor:
        """float32 [B, N]: each item as the next one after each sequence; higher is better."""


class Fitted(NamedTuple):
    """A trained network and how it came about."""

    network: Any
    epochs: int  # of the weights that are kept
    history: list[float]  # validation NDCG@10 after each epoch; empty without validation


def fit(
    build: Callable[[], Any],
    sequences: Sequence[IntArray],
    training: Training,
    *,
    seed: int,
    epochs: int | None = None,
    validation: Split | None = None,
    report: Callable[[str], None],
    checkpoint: Path | None = None,
) -> Fitted:
    """A network from `build` trained on `sequences`; the seed decides initial weights, dropout and order.

    With `epochs` exactly so many. With `validation`, until NDCG@10 there has not risen for `training.patience` epochs (at most
    `training.max_epochs`), and the best epoch's weights are kept. With `checkpoint` (a JSON path) a training that was stopped
    goes on after its last whole epoch, to the same result.

    Raises:
        ValueError: neither or both of `epochs` and `validation`.
    """
    if (epochs is None) == (validation is None):
        raise ValueError("fit needs either a number of epochs or a validation split.")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = build()
    both = {"network": network, "average": copy.deepcopy(network).eval()}
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    kept = [sequence[-training.max_length - 1 :] for sequence in sequences if len(sequence) > 1]
    asked = None if validation is None else validation.sample(training.validation_users)
    facts, best = ({}, {}) if checkpoint is None else load_checkpoint(checkpoint, both, optimizer, rng)
    history: list[float] = facts.get("history", [])
    step = int(facts.get("step", 0))
    for epoch in range(int(facts.get("epoch", 0)) + 1, (epochs or training.max_epochs) + 1):
        if history and len(history) - _best(history) >= training.patience:
            break
        step, loss = _epoch(both, optimizer, kept, training, rng, step)
        line = f"epoch {epoch}: loss {loss:.3f}"
        if asked is not None:
            ranks = target_ranks(scorer(both["average"], training.max_length), asked)
            history.append(float(gains(ranks.filtered, CRITERION).mean()))
            line += f", validation {CRITERION} {history[-1]:.4f}"
            if history[-1] >= max(history):
                best = {name: tensor.clone() for name, tensor in both["average"].state_dict().items()}
        if checkpoint is not None:
            facts = {"epoch": epoch, "step": step, "history": history}
            save_checkpoint(checkpoint, both, best, optimizer, rng, facts)
        report(line)
    if asked is not None:
        both["average"].load_state_dict(best)
    return Fitted(both["average"], epochs or _best(history), history)


def _epoch(
    both: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    sequences: Sequence[IntArray],
    training: Training,
    rng: np.random.Generator,
    step: int,
) -> tuple[int, float]:
    """One pass; returns the number of the last step and the mean loss."""
    losses = []
    network = both["network"].train()
    for _, batch in batches(sequences, training.positions_at_once, rng):
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * min(1.0, step / WARM_UP_STEPS)
        loss = network.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _follow(both["average"], network, min(training.average, (1 + step) / (10 + step)))
        losses.append(float(loss.detach()))
    return step, float(np.mean(losses))


def scorer(network: Any, max_length: int) -> Score:
    """The network as a function from histories to scores; it reads the last `max_length` items."""

    def score(histories: Sequence[IntArray]) -> ScoreBlock:
        with torch.no_grad():
            return network.scores(make_batch([h[-max_length:] for h in histories])).float().numpy()

    return score


def next_items(batch: Batch) -> tuple[Batch, Tensor, Tensor]:
    """Inputs (all but the last column), where they have a successor (B, L - 1), and the successors in that order (X,)."""
    has_next = batch.real_BL[:, 1:]
    return Batch(batch.items_BL[:, :-1], batch.real_BL[:, :-1]), has_next, batch.items_BL[:, 1:][has_next]


def last_states(states_BLD: Tensor, batch: Batch) -> Tensor:
    """(B, D): the state of each sequence's last item."""
    return states_BLD[torch.arange(len(states_BLD)), batch.last_columns()]


def _best(history: Sequence[float]) -> int:
    """Number of the last of the best epochs, from 1."""
    return len(history) - int(np.argmax(history[::-1]))


def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(new)
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
