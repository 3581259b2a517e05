"""Auxiliary alignment examples: words to items without a history, so that words themselves must find the items.

The query and category requests of the shards, asked by nobody in particular: profile and history are empty, instruction, focus and
targets stay. Part of a step's users beside the real ones, off by default. Source: LC-Rec's auxiliary tasks, of which "query to
item" is this; "item to text" is `item_text.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from sigma_core.instruction.collate import NUM_STATS, UserContext

if TYPE_CHECKING:
    from sigma_core.training.batches import TrainingUser

WORDED: Final = ("query", "category")  # tasks whose words alone say what is wanted


def nobody() -> UserContext:
    """A context without profile and history."""
    rows, stats = np.zeros(0, dtype=np.int64), np.zeros((0, NUM_STATS), dtype=np.float32)
    return UserContext("", "", rows, stats, rows, stats)


def aligned_users(users: Sequence["TrainingUser"]) -> list["TrainingUser"]:
    """A user without history for each of `users` that asked something by words, with those requests; day and targets stay."""
    out = []
    for user in users:
        asked = tuple(r for r in user.requests if r.task in WORDED)
        if asked:
            out.append(replace(user, context=nobody(), requests=asked))
    return out
