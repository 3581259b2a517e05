"""`sigma benchmark diagnosis`: where a trained day's just-for-you lists are right, and whether their probabilities are.

Asks a root's newest day and lays out what `evaluation/diagnosis.py` finds in the lists. The answers are the distinct items bought in
the days after.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sigma_core import columns as c
from sigma_core.evaluation.diagnosis import (
    SEGMENTS,
    calibration_error,
    outcomes,
    recall_by_segment,
    reliability,
    segments_of,
)
from sigma_core.evaluation.metrics import target_sets
from sigma_core.evaluation.requests import NO_ITEM
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.generation.recommender import Recommendation

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
    segment = np.array([by_item[item] for item in engine.index.item_ids])
    rows, scores = as_arrays(lists)
    answers = target_sets([np.array(sorted(mine), np.int32) for mine in wanted])
    curve = reliability(*outcomes(rows, scores, answers), bins)
    titles = dict(loaded.catalog.frame.select(c.ITEM_ID, c.TITLE).iter_rows())
    hits = sum(len({r.row for r in ranked} & mine) for ranked, mine in zip(lists, wanted, strict=True))
    day, after = loaded.day.isoformat(), days_after(root, loaded.day, days)
    return {
        "recall@20": hits / max(1, sum(map(len, wanted))),
        "expected_calibration_error": calibration_error(curve),
        "users": len(people),
        "segments": recall_by_segment(rows, answers, segment),
        "reliability": curve,
        "examples": [
            {
                "user": user.user_id, "rank": rank, "item": titles[engine.index.item_ids[r.row]], "probability": r.score,
                "segment": SEGMENTS[segment[r.row]], "bought": "yes" if r.row in mine else "",
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


def as_arrays(lists: "Sequence[Sequence[Recommendation]]") -> tuple[np.ndarray, np.ndarray]:
    """Rows and probabilities of the lists as arrays [R, 20], padded with -1 and 0."""
    rows, scores = np.full((len(lists), TOP_N), NO_ITEM, np.int32), np.zeros((len(lists), TOP_N), np.float32)
    for number, ranked in enumerate(lists):
        rows[number, : len(ranked)] = [r.row for r in ranked]
        scores[number, : len(ranked)] = [r.score for r in ranked]
    return rows, scores
