"""A user's context from their events as they come, without a data frame: what live requests and nearline updates read.

Gives what `instruction.contexts` gives for the same events (tested), a few hundred times faster for one user. No I/O.
Our choice; the paper aggregates behaviour by the minute.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np

from sigma_core.config import InstructionConfig
from sigma_core.instruction.collate import NUM_STATS, UserContext
from sigma_core.instruction.contexts import FAST

_UNIT: Final = 2**40  # as in instruction.contexts: decayed counts are summed as integers


class Taken(NamedTuple):
    """One event of a user: the item, its age in days at the cut, when (any comparable time), how many event lines."""

    item_id: str
    age_days: int
    time: float
    lines: int = 1


class _Sums:
    """What is known of one item."""

    __slots__ = ("age", "count", "fast", "slow", "time")

    def __init__(self) -> None:
        self.count, self.slow, self.fast = 0, 0, 0
        self.age, self.time = 2**31, -np.inf


def live_context(
    user_id: str,
    profile_text: str,
    taken: Iterable[Taken],
    rows: Mapping[str, int],
    config: InstructionConfig,
) -> UserContext:
    """The context of these events over an item table; `rows` maps its items to rows, other items are left out."""
    sums: dict[str, _Sums] = {}
    for event in taken:
        if event.item_id not in rows:
            continue
        mine = sums.setdefault(event.item_id, _Sums())
        mine.count += event.lines
        mine.slow += event.lines * _weight(event.age_days, config.favorite_half_life_days)
        mine.fast += event.lines * _weight(event.age_days, config.favorite_half_life_days / FAST)
        mine.age, mine.time = min(mine.age, event.age_days), max(mine.time, event.time)
    recent = sorted(sums, key=lambda item: (-sums[item].time, item))[: config.max_recent]
    favorite = sorted(sums, key=lambda item: (-sums[item].slow, -sums[item].time, item))[
        : config.max_favorites
    ]

    def listed(items: list[str]) -> tuple[np.ndarray, np.ndarray]:
        stats = [(s.count, s.age, s.slow / _UNIT, s.fast / _UNIT) for s in map(sums.__getitem__, items)]
        return (
            np.asarray([rows[item] for item in items], dtype=np.int64),
            np.asarray(stats, dtype=np.float32).reshape(-1, NUM_STATS),
        )

    return UserContext(user_id, profile_text, *listed(recent), *listed(favorite))


def _weight(age_days: int, half_life: float) -> int:
    return round(_UNIT * 0.5 ** (age_days / half_life))
