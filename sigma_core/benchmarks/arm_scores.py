"""From ranked lists to the numbers of an ablation or backtest: sums by household, intervals, paired differences, calibration.

Works on what `evaluation/` defines and adds three things: means over seeds before households are resampled, pooling of days,
and calibration error. Knows no model. Source: tasks.md; calibration error is the usual expected calibration error, times the items of a list.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sigma_core.evaluation.diagnosis import outcomes
from sigma_core.evaluation.metrics import FloatArray, Ratio, coverage, household_sums, outcome_of
from sigma_core.evaluation.protocol import DayJudge
from sigma_core.evaluation.request_plan import TaskPlan
from sigma_core.evaluation.requests import NO_ITEM
from sigma_core.evaluation.significance import nothing_like, paired_differences

# Shape legend: R requests, H households, B bins.
ROWS: Final = ("all", "repeat", "new", "cold")
CALIBRATION: Final = "calibration_error@20"
COVERAGE: Final = "coverage@20"
BINS: Final = 10
Sums = dict[str, dict[str, Ratio]]  # row of the targets -> metric -> sums by household


def list_sums(judge: DayJudge, plan: TaskPlan, rows: np.ndarray) -> Sums:
    """Every metric of one ranker's lists as sums by household [H], on all targets and on parts of them.

    `plan` is one of `judge.plan.tasks`, `rows` int32 [R, 20] its requests' lists.
    """
    outcome = outcome_of(rows, plan.targets, judge.facts)
    masks = {"all": None, **judge.rows(plan)}
    num = len(plan.user_ids)
    return {row: household_sums(outcome, plan.targets, plan.users, num, mask) for row, mask in masks.items()}


def mean_sums(repeats: Sequence[Sums]) -> Sums:
    """The mean over seeds, household by household: resampling households then speaks of the mean model."""
    return {
        row: {
            metric: Ratio(
                np.mean([sums[row][metric].num for sums in repeats], axis=0),
                np.mean([sums[row][metric].den for sums in repeats], axis=0),
            )
            for metric in repeats[0][row]
        }
        for row in repeats[0]
    }


def intervals(sums: Mapping[str, Ratio], samples: int, seed: int) -> dict[str, dict[str, float | None]]:
    """Metric -> mean, low, high, by resampled households; all None for a metric without a target."""
    found = differences(sums, {name: nothing_like(ratio) for name, ratio in sums.items()}, samples, seed)
    return {metric: _three(d["mean"], d["low"], d["high"]) for metric, d in found.items()}


def differences(
    left: Mapping[str, Ratio], right: Mapping[str, Ratio], samples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """Metric -> mean, low, high, p of left minus right, over the same resampled households."""
    names = [name for name in left if left[name].value() is not None and right[name].value() is not None]
    found = paired_differences(
        [left[n] for n in names], [right[n] for n in names], samples=samples, seed=seed
    )
    known = dict(zip(names, found, strict=True))
    none: dict[str, float | None] = {**_three(None, None, None), "p": None}
    return {
        name: {**_three(d.value, d.low, d.high), "p": d.p} if (d := known.get(name)) else none
        for name in left
    }


def _three(mean: float | None, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"mean": mean, "low": low, "high": high}


def mean_coverage(repeats: Sequence[np.ndarray], num_items: int) -> dict[str, float | None]:
    """Mean coverage over seeds; it is no mean over households, so it has no interval."""
    return _three(float(np.mean([coverage(rows, num_items) for rows in repeats])), None, None)


# ------------------------------------------------------------------------------------- calibration
class Calibration:
    """Predicted and observed probability of listed items, by household and bin, from one ranker's lists of one task.

    An item's observed probability is 1 / number of targets when it is one, else 0: probabilities of items are those of *one*
    purchase. Bins hold equally many listed items each, by predicted probability. Expected calibration error is the sum over
    bins of |predicted - observed| over the number of lists: the share of a list's probability that lies in the wrong place. A
    report's reliability curve divides by the number of listed items instead, which is twenty times less for lists of twenty.
    """

    def __init__(self, plan: TaskPlan, rows: np.ndarray, scores: np.ndarray) -> None:
        predicted, observed = outcomes(rows, scores, plan.targets)
        edges = (
            np.quantile(predicted, np.linspace(0, 1, BINS + 1)[1:-1])
            if predicted.size
            else np.zeros(BINS - 1)
        )
        num, request = len(plan.user_ids), np.nonzero(rows != NO_ITEM)[0]
        cell = plan.users[request] * BINS + np.searchsorted(edges, predicted, side="right")

        def table(values: FloatArray) -> FloatArray:
            summed = np.bincount(cell, weights=values, minlength=num * BINS)
            return summed.astype(np.float64).reshape(num, BINS)

        self.gap_HB = table(predicted) - table(observed)
        self.lists_H = np.bincount(plan.users, minlength=num).astype(np.float64)


def calibration_error(repeats: Sequence[Calibration], weights_SH: np.ndarray) -> FloatArray:
    """Mean over seeds of the expected calibration error, [S], households weighted as each row says."""
    total = np.maximum(weights_SH @ repeats[0].lists_H, 1e-12)
    return np.mean([np.abs(weights_SH @ one.gap_HB).sum(axis=1) / total for one in repeats], axis=0)


def compare_calibration(
    left: Sequence[Calibration], right: Sequence[Calibration] | None, samples: int, seed: int
) -> dict[str, float | None]:
    """mean, low, high of the error of `left`, or of `left` minus `right`, over resampled households; `noise` of an error itself.

    An error is a sum of distances, so chance can only add to it: a resample's error lies above the estimate as the estimate lies
    above the truth. The interval is therefore the basic one, the percentiles of the resamples mirrored at the estimate (and cut
    at 0 for an error itself). `noise` is the error that as many households would show if every probability were right: an
    error no larger says nothing.
    """
    num = len(left[0].lists_H)
    drawn = (
        np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=samples).astype(np.float64)
    )
    weights = np.concatenate([np.ones((1, num)), drawn])
    error = calibration_error(left, weights)
    if right is not None:
        error = error - calibration_error(right, weights)
    low, high = 2 * error[0] - np.quantile(error[1:], [0.975, 0.025])
    if right is not None:
        return _three(float(error[0]), float(low), float(high))
    apart = np.mean([np.abs((drawn - 1) @ one.gap_HB).sum(axis=1).mean() for one in left])
    noise = float(apart / max(left[0].lists_H.sum(), 1e-12))
    return {**_three(float(error[0]), max(float(low), 0.0), max(float(high), 0.0)), "noise": noise}


# ------------------------------------------------------------------------------------------ pooled
def pooled(days: Sequence[tuple[Sequence[str], Mapping[str, Ratio]]]) -> dict[str, Ratio]:
    """Sums of several days in one, a household's days together: (households, metric -> sums) of each day."""
    everyone = sorted({user for users, _ in days for user in users})
    place = {user: n for n, user in enumerate(everyone)}
    out = {name: Ratio(np.zeros(len(everyone)), np.zeros(len(everyone))) for name in days[0][1]}
    for users, sums in days:
        at = np.array([place[user] for user in users], np.int64)
        for name, ratio in sums.items():
            out[name].num[at] += ratio.num
            out[name].den[at] += ratio.den
    return out


def rounded(value: Any) -> Any:
    """The JSON value with floats of six decimals."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(float(value), 6) + 0.0 if isinstance(value, float) else value
