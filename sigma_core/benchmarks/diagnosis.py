"""`sigma benchmark diagnosis`: where a trained day's just-for-you lists are right, and whether their probabilities are.

Recall by segment of the catalog (head, torso, tail, cold), a reliability curve of the fused probabilities P(v | T) with its expected
calibration error, and example lists. The answers are the distinct items bought in the days after. Our choice: an item is observed
with 1 / (number of the user's targets) when it was bought, because P(v | T) is a distribution over one next item.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.generation.recommender import Recommendation

HEAD_SHARE: Final = 0.5  # of the volume of 56 days: the fewest items that make it
SEGMENTS: Final = ("head", "torso", "tail", "cold")
TOP_N: Final = 20
EXAMPLES: Final = 3
SHOWN: Final = 8
BATCH: Final = 32


def run_diagnosis(
    root: Path, users: int = 300, days: int = 7, bins: int = 10, progress: Progress = no_progress
) -> dict[str, Any]:
    """`segments`, `reliability` and `examples` as tables, `expected_calibration_error` and `recall@20` as numbers.

    Raises:
        RequestError: the root holds no trained day, or no purchase after it.
    """
    import torch

    from sigma_core.benchmarks.generation import (
        days_after,
        just_for_you,
        next_purchases,
        people_with_targets,
    )
    from sigma_core.benchmarks.record import answering_digests, artifact_digests
    from sigma_core.generation.recommender import Ask
    from sigma_core.instruction.collate import Request
    from sigma_core.serving.runtime import load_recommender

    loaded = load_recommender(root)
    engine = loaded.engine
    targets = next_purchases(root, loaded.day, days, engine.rows)
    people = people_with_targets(root, loaded, targets, users)
    request, lists = Request(just_for_you()), []
    for start in range(0, len(people), BATCH):
        progress(start, len(people), "users")
        part = people[start : start + BATCH]
        lists += engine.recommender.rank(part, [[Ask(request)] for _ in part], {}, TOP_N)
    wanted = [targets[user.user_id] for user in people]
    by_item = dict(zip(loaded.catalog.frame[c.ITEM_ID], segments_of(loaded.catalog.frame), strict=True))
    segment = [by_item[item] for item in engine.index.item_ids]
    predicted, observed = outcomes(lists, wanted)
    curve = reliability(predicted, observed, bins)
    titles = dict(loaded.catalog.frame.select(c.ITEM_ID, c.TITLE).iter_rows())
    hits = sum(len({r.row for r in ranked} & mine) for ranked, mine in zip(lists, wanted, strict=True))
    day, after = loaded.day.isoformat(), days_after(root, loaded.day, days)
    return {
        "recall@20": hits / max(1, sum(map(len, wanted))),
        "expected_calibration_error": calibration_error(curve),
        "users": len(people),
        "segments": recall_by_segment(lists, wanted, segment),
        "reliability": curve,
        "examples": [
            {
                "user": user.user_id, "rank": rank, "item": titles[engine.index.item_ids[r.row]], "probability": r.score,
                "segment": segment[r.row], "bought": "yes" if r.row in mine else "",
            }
            for user, ranked, mine in list(zip(people, lists, wanted, strict=True))[:EXAMPLES]
            for rank, r in enumerate(ranked[:SHOWN], start=1)
        ],
        "data": answering_digests(root, day) | artifact_digests(root, {"interaction_events": after}),
        "settings": {
            "day": day, "users": users, "days": days, "bins": bins,
            "num_prefixes": engine.recommender.config.num_prefixes, "threads": torch.get_num_threads(),
        },
    }  # fmt: skip


def segments_of(catalog: pl.DataFrame) -> list[str]:
    """Each row's segment: cold is launched lately, tail makes the last 20 % of the volume, head the first half, torso the rest."""
    volume = catalog[c.NUM_EVENTS_56D].to_numpy().astype(np.float64)
    order = np.argsort(-volume, kind="stable")
    before = np.cumsum(volume[order]) - volume[order]
    is_head = np.zeros(len(volume), dtype=bool)
    is_head[order] = before < HEAD_SHARE * volume.sum()
    flags = zip(catalog[c.IS_NEW], catalog[c.IS_TAIL], is_head.tolist(), strict=True)
    return ["cold" if new else "tail" if tail else "head" if head else "torso" for new, tail, head in flags]


def recall_by_segment(
    lists: "Sequence[Sequence[Recommendation]]", targets: Sequence[set[int]], segment: Sequence[str]
) -> list[dict[str, Any]]:
    """Targets, hits and recall of each segment, and its share of what was listed; recall is None without targets."""
    wanted, hits, listed = (dict.fromkeys(SEGMENTS, 0) for _ in range(3))
    for ranked, mine in zip(lists, targets, strict=True):
        for row in mine:
            wanted[segment[row]] += 1
        for r in ranked:
            listed[segment[r.row]] += 1
            hits[segment[r.row]] += r.row in mine
    total = max(1, sum(listed.values()))
    return [
        {
            "segment": name, "targets": wanted[name], "hits": hits[name],
            "recall@20": hits[name] / wanted[name] if wanted[name] else None, "share_of_lists": listed[name] / total,
        }
        for name in SEGMENTS
    ]  # fmt: skip


def outcomes(
    lists: "Sequence[Sequence[Recommendation]]", targets: Sequence[set[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted probability and what was observed, an entry a listed item."""
    pairs = [
        (r.score, 1 / len(mine) if r.row in mine else 0.0)
        for ranked, mine in zip(lists, targets, strict=True)
        for r in ranked
    ]
    table = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def reliability(predicted: np.ndarray, observed: np.ndarray, bins: int) -> list[dict[str, Any]]:
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
