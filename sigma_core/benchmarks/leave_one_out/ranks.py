"""Where the target stands among all items, and what that is worth. Full ranking, ties at mid-rank.

`target_ranks` turns blocks of scores into one rank a user, with the history filtered and without; metrics and intervals are
functions of ranks alone. Intervals and tests draw users (`evaluation.significance`). Source: the field's definitions;
mid-rank ties and bootstrap settings are our choice.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from sigma_core.benchmarks.leave_one_out.data import IntArray, Split
from sigma_core.evaluation.metrics import Ratio
from sigma_core.evaluation.significance import paired_differences

FloatArray = npt.NDArray[np.float64]
ScoreBlock = npt.NDArray[np.float32]
Score = Callable[[Sequence[IntArray]], ScoreBlock]  # histories -> float32 [users, N], higher is better

CUTOFFS: Final = (5, 10)
METRICS: Final = tuple(f"{name}@{k}" for name in ("recall", "ndcg") for k in CUTOFFS)
SAMPLES: Final = 2000
BOOTSTRAP_SEED: Final = 0
USERS_AT_ONCE: Final = 256


class Ranks(NamedTuple):
    """Rank of each user's target from 1 (x.5 in a tie), float64 [users]."""

    filtered: FloatArray  # among the items the user does not have yet
    unfiltered: FloatArray  # among all items


def target_ranks(score: Score, split: Split) -> Ranks:
    """Ranks of the split's targets under `score`, asked for users of similar history length together.

    With n items scored higher than the target and e others scored the same, the rank is 1 + n + e / 2. A target that is in
    the history cannot be recommended once that is filtered: its rank is infinite there.
    """
    out = np.zeros((2, len(split.targets)))
    order = np.argsort([len(h) for h in split.histories], kind="stable")
    for start in range(0, len(order), USERS_AT_ONCE):
        users = order[start : start + USERS_AT_ONCE]
        histories, targets = [split.histories[u] for u in users], split.targets[users]
        scores = score(histories)
        out[:, users] = _ranks(scores, histories, targets)
    return Ranks(out[0], out[1])


def _ranks(scores: ScoreBlock, histories: Sequence[IntArray], targets: IntArray) -> FloatArray:
    own = scores[np.arange(len(targets)), targets][:, None]
    if not np.isfinite(own).all():
        raise ValueError("a model scored a target NaN or infinite; scores must be finite.")
    unfiltered = _mid_rank((scores > own).sum(axis=1), (scores == own).sum(axis=1))
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    taken = np.zeros(scores.shape, np.bool_)
    taken[users, np.concatenate(histories)] = True
    higher = _open_columns(scores > own, taken)
    same = _open_columns(scores == own, taken)
    filtered = _mid_rank(higher, same)
    filtered[taken[np.arange(len(targets)), targets]] = np.inf
    return np.stack([filtered, unfiltered])


def _open_columns(mask: npt.NDArray[np.bool_], taken: npt.NDArray[np.bool_]) -> IntArray:
    """How many of the columns of `mask` that are not `taken`, a row."""
    return np.asarray((mask & ~taken).sum(axis=1), np.int64)


def _mid_rank(higher: IntArray, same: IntArray) -> FloatArray:
    return 1.0 + higher + (same - 1) / 2


def gains(ranks: FloatArray, metric: str) -> FloatArray:
    """A metric's value for each user [users]: recall@k is 1 where rank <= k, ndcg@k 1 / log2(1 + rank) there.

    Example: rank 2 has ndcg@5 1 / log2(3).
    """
    name, k = metric.split("@")
    hit = ranks <= int(k)
    if name == "recall":
        return hit.astype(np.float64)
    return np.where(hit, 1.0 / np.log2(1.0 + ranks), 0.0)


def metric_values(ranks: Ranks) -> dict[str, float]:
    """Every metric's mean over users, filtered under its own name, unfiltered with the suffix `_unfiltered`."""
    return {
        **{metric: float(gains(ranks.filtered, metric).mean()) for metric in METRICS},
        **{f"{metric}_unfiltered": float(gains(ranks.unfiltered, metric).mean()) for metric in METRICS},
    }


def differences(
    left: Sequence[Sequence[Ranks]], right: Sequence[Sequence[Ranks] | None], metrics: Sequence[str]
) -> list[dict[str, float]]:
    """`left[i]` minus `right[i]` (minus nothing where that is None) in `metrics[i]`, each averaged over its seeds for every user:
    difference, 95 % interval and p. All of them draw the same users (paired bootstrap), in one go.
    """
    ours = [_over_seeds(ranks, metric) for ranks, metric in zip(left, metrics, strict=True)]
    theirs = [
        Ratio(np.zeros(len(own.num)), own.den) if ranks is None else _over_seeds(ranks, metric)
        for own, ranks, metric in zip(ours, right, metrics, strict=True)
    ]
    found = paired_differences(ours, theirs, samples=SAMPLES, seed=BOOTSTRAP_SEED)
    return [{"difference": one.value, "low": one.low, "high": one.high, "p": one.p} for one in found]


def _over_seeds(ranks: Sequence[Ranks], metric: str) -> Ratio:
    mean = np.mean([gains(one.filtered, metric) for one in ranks], axis=0)
    return Ratio(mean, np.ones(len(mean)))
