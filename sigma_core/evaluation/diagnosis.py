"""Where lists are right, and whether their probabilities are: recall by segment of the catalog, reliability, calibration error.

Works on lists of rows and knows no model. Our choice: a listed item is observed with 1 / (number of the request's targets) when it
is a target, because P(v | T) is a distribution over one next item.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core import columns as c
from sigma_core.evaluation.metrics import FloatArray, TargetSets, contains, target_ranks
from sigma_core.evaluation.requests import NO_ITEM, IntArray

# Shape legend: R requests, n length of a list, N items of the catalog.
HEAD_SHARE: Final = 0.5  # of the volume of 56 days: the fewest items that make it
SEGMENTS: Final = ("head", "torso", "tail", "cold")
BINS: Final = 10  # of a report's reliability curve


def segments_of(catalog: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Each row's segment [N], a position in `SEGMENTS`: cold is launched lately, tail makes the last 20 % of the volume, head the
    first half, torso the rest.
    """
    volume = catalog[c.NUM_EVENTS_56D].to_numpy().astype(np.float64)
    order = np.argsort(-volume, kind="stable")
    before = np.cumsum(volume[order]) - volume[order]
    is_head = np.zeros(len(volume), dtype=bool)
    is_head[order] = before < HEAD_SHARE * volume.sum()
    flags = [catalog[c.IS_NEW].to_numpy(), catalog[c.IS_TAIL].to_numpy(), is_head]
    named = [SEGMENTS.index(name) for name in ("cold", "tail", "head")]
    return np.asarray(np.select(flags, named, SEGMENTS.index("torso")), np.int64)


def recall_by_segment(
    lists: IntArray, targets: TargetSets, segment: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Targets, hits and recall of each segment, and its share of what was listed; recall is None without targets.

    Args:
        lists: [R, 20], padded with -1.
        targets: of the R requests.
        segment: of `segments_of`, of whatever the lists' rows number.
    """
    found = target_ranks(lists, targets) < lists.shape[1]
    listed = lists[lists != NO_ITEM]
    size = len(SEGMENTS)
    wanted = np.bincount(segment[targets.rows], minlength=size).tolist()
    hits = np.bincount(segment[targets.rows[found]], minlength=size).tolist()
    shown = np.bincount(segment[listed], minlength=size) / max(1, listed.size)
    return [
        {
            "segment": name, "targets": wanted[n], "hits": hits[n],
            "recall@20": hits[n] / wanted[n] if wanted[n] else None, "share_of_lists": float(shown[n]),
        }
        for n, name in enumerate(SEGMENTS)
    ]  # fmt: skip


def segments_of_models(
    lists: Mapping[str, IntArray], targets: TargetSets, segment: npt.NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """By segment: its `targets`, and by model `recall@20` of them and `share_of_lists`. One model at least."""
    found = {name: recall_by_segment(rows, targets, segment) for name, rows in lists.items()}
    first = next(iter(found.values()))
    return {
        row["segment"]: {
            "targets": row["targets"],
            "recall@20": {name: rows[n]["recall@20"] for name, rows in found.items()},
            "share_of_lists": {name: rows[n]["share_of_lists"] for name, rows in found.items()},
        }
        for n, row in enumerate(first)
    }


def calibration_of(lists: IntArray, scores: npt.NDArray[Any], targets: TargetSets) -> dict[str, Any] | None:
    """How far the lists' probabilities can be believed: error, means and curve; None when nothing was listed."""
    predicted, observed = outcomes(lists, scores, targets)
    if not predicted.size:
        return None
    curve = reliability(predicted, observed, BINS)
    return {
        "lists": len(lists),
        "expected_calibration_error": calibration_error(curve),
        "mean_predicted": float(predicted.mean()),
        "mean_observed": float(observed.mean()),
        "bins": curve,
    }


def outcomes(lists: IntArray, scores: npt.NDArray[Any], targets: TargetSets) -> tuple[FloatArray, FloatArray]:
    """Predicted probability and what was observed, an entry a listed item, list by list.

    Args:
        lists: [R, n], padded with -1.
        scores: probability of each listed item, [R, n].
        targets: of the R requests.
    """
    request, place = np.nonzero(lists != NO_ITEM)
    rows = lists[request, place].astype(np.int64)
    width = int(max(rows.max(initial=0), targets.rows.max(initial=0))) + 1
    wanted = np.sort(targets.requests() * width + targets.rows)
    is_hit = contains(wanted, request * width + rows)
    observed = is_hit / np.maximum(targets.counts(), 1)[request]
    return scores[request, place].astype(np.float64), np.asarray(observed, np.float64)


def reliability(predicted: FloatArray, observed: FloatArray, bins: int) -> list[dict[str, Any]]:
    """Bins of equally many items by predicted probability: mean predicted, mean observed, count."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(bins, max(1, len(predicted))))
    return [
        {
            "predicted": float(predicted[part].mean()),
            "observed": float(observed[part].mean()),
            "count": len(part),
        }
        for part in parts
        if len(part)
    ]


def calibration_error(curve: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error: mean distance of predicted and observed, bins weighted by their counts."""
    total = sum(row["count"] for row in curve)
    return sum(row["count"] * abs(row["predicted"] - row["observed"]) for row in curve) / max(1, total)
