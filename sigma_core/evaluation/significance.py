"""Is a difference more than chance? Paired bootstrap over users, and Holm's correction over many comparisons.

Users are the unit that is drawn: one user's requests hang together, so drawing requests or targets would make every
interval too narrow. Works on `metrics.Ratio` sums only. Source: tasks.md ("Intervals and tests resample households");
the p-value's form is our choice.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sigma_core.evaluation.metrics import FloatArray, Ratio

# Shape legend: B resamples, H users, C comparisons.
_CELLS_AT_ONCE = (
    4_000_000  # B x H weights held at a time (32 MB), so that many users cost time and not memory
)


class Difference(NamedTuple):
    """A metric of one ranker minus that of another, over the same users."""

    value: float
    low: float  # 2.5 % quantile of the resampled differences
    high: float  # 97.5 %
    p: float  # two-sided; H0: no difference


def paired_differences(
    left: Sequence[Ratio], right: Sequence[Ratio], *, samples: int, seed: int, level: float = 0.95
) -> list[Difference]:
    """`left[i] - right[i]` with intervals, every comparison on the same resampled users.

    Each resample draws H users with replacement (multinomial weights) and takes both metrics as ratios of the drawn
    sums. The interval is the resamples' percentiles. The p-value is two-sided normal with the resamples' standard
    deviation: counting resamples beyond 0 cannot go under 1 / samples, too coarse for a Holm family of fifty.

    Raises:
        ValueError: the two sides differ in length or users.
    """
    if len(left) != len(right):
        raise ValueError(
            f"{len(left)} metrics on the left, {len(right)} on the right; they are compared one to one."
        )
    if not left:
        return []
    numerators = [np.stack([r.num for r in side], axis=1) for side in (left, right)]  # [H, C]
    denominators = [np.stack([r.den for r in side], axis=1) for side in (left, right)]
    if numerators[0].shape != numerators[1].shape:
        raise ValueError(
            f"{numerators[0].shape[0]} users on the left, {numerators[1].shape[0]} on the right."
        )
    present = (denominators[0] > 0).any(axis=1) | (denominators[1] > 0).any(axis=1)
    sums = [array[present] for array in (*numerators, *denominators)]
    drawn = np.concatenate(
        [
            _ratio(weights @ sums[0], weights @ sums[2]) - _ratio(weights @ sums[1], weights @ sums[3])
            for weights in _weights(int(present.sum()), samples, seed)
        ]
    )  # [B, C]
    observed = _ratio(sums[0].sum(axis=0), sums[2].sum(axis=0)) - _ratio(
        sums[1].sum(axis=0), sums[3].sum(axis=0)
    )
    return [_difference(float(observed[i]), drawn[:, i], level) for i in range(len(left))]


def nothing_like(ratio: Ratio) -> Ratio:
    """A metric of 0 over the same users: the difference to it is the metric itself, and so has its interval."""
    return Ratio(np.zeros_like(ratio.num), ratio.den)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values: reject those <= alpha and the chance of any false win is <= alpha.

    Sorted ascending, the i-th of m (from 0) is multiplied by m - i, made non-decreasing, and cut at 1.
    """
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    out: dict[str, float] = {}
    highest = 0.0
    for i, name in enumerate(ordered):
        highest = max(highest, min(1.0, p_values[name] * (len(ordered) - i)))
        out[name] = highest
    return {name: out[name] for name in p_values}


def _weights(num_users: int, samples: int, seed: int) -> Iterator[FloatArray]:
    """Multinomial weights [b, H] in blocks of rows that add up to `samples`."""
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS_AT_ONCE // max(1, num_users))
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        yield rng.multinomial(num_users, np.full(num_users, 1 / num_users), size=rows).astype(np.float64)


def _ratio(num: FloatArray, den: FloatArray) -> FloatArray:
    return np.asarray(np.divide(num, den, out=np.full(num.shape, np.nan), where=den > 0), np.float64)


def _difference(observed: float, drawn: npt.NDArray[np.float64], level: float) -> Difference:
    known = drawn[~np.isnan(drawn)]  # a resample may miss every user that has a target
    if known.size == 0:
        return Difference(observed, observed, observed, 1.0)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    spread = float(known.std())
    if spread < 1e-12:
        p = 1.0 if abs(observed) < 1e-12 else 1.0 / (known.size + 1)
    else:
        p = math.erfc(abs(observed) / spread / math.sqrt(2))
    return Difference(observed, float(low), float(high), p)
