"""Held-out retrieval: does the right item stand among the nearest texts of an anchor?

Pure numpy over vectors. Used on the frozen backbone's vectors, before and after training, on the same pool, to say what
training changed. Our choice.
"""

import numpy as np

from sigma_core.grounding.pair_plan import PairPlan

CUTOFF = 20
OTHER_CUTOFFS = (5, 100)
MAX_QUERIES = 2000  # a view; enough for a standard error of .01


def held_out_recall(plan: PairPlan, vectors: np.ndarray, cutoff: int = CUTOFF) -> dict[str, float | None]:
    """Recall@`cutoff` of the held-out pairs by view, None for a view without any.

    `vectors` (float [texts, D], unit rows) are those of `plan.texts`. Each pair asks for its positive among the item texts of
    the pool; the anchor itself and its other known partners are left out, so that they cannot stand in the way.
    """
    return {view: _recall(plan, vectors, view, cutoff) for view in sorted(plan.held_out)}


def _recall(plan: PairPlan, vectors: np.ndarray, view: str, cutoff: int) -> float | None:
    pairs = plan.held_out[view]
    asked = np.flatnonzero(plan.item_texts[pairs.positive])[:MAX_QUERIES]
    if len(asked) == 0:
        return None
    anchor, positive = pairs.anchor[asked], pairs.positive[asked]
    candidates = np.flatnonzero(plan.item_texts)
    scores = vectors[anchor] @ vectors[candidates].T
    target = np.einsum("qd,qd->q", vectors[anchor], vectors[positive])
    hidden = plan.is_known(anchor[:, None], candidates[None, :])
    ahead = ((scores > target[:, None] + 1e-6) & ~hidden).sum(axis=1)
    return round(float((ahead < cutoff).mean()), 4)
