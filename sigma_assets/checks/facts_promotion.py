"""Facts of the promoted model: one row of what the pointer says and what its adapter is."""

from typing import Any

import numpy as np

from sigma_assets.checks.facts_base import Frames, figures


def promoted_facts(value: Any, *, day: str, base: Any) -> Frames:
    """The pointer of a day as one row.

    Args:
        value: `.pointer` and `.checkpoint` of `PromotedModel`.
        day: the partition.
        base: the month's model: `.digest()` and `.bound_to`.
    """
    pointer, checkpoint = value.pointer, value.checkpoint
    tensors = checkpoint.tensors.values()
    row = figures(
        outcome=pointer.outcome,
        reason=pointer.reason,
        num_not_finite=sum(int((~np.isfinite(array)).sum()) for array in tensors),
        is_of_the_day=pointer.as_of == day,
        knows_no_later_day=pointer.model.day <= day and pointer.since <= day,
        is_what_it_names=checkpoint.digest() == pointer.model.checkpoint,
        fits_base=checkpoint.base_digest == base.digest() == pointer.model.base,
        fits_prefixes=checkpoint.bound_to == base.bound_to,
    )
    return {"promoted_model": row}
