"""The purchases of a source as sorted numbers: made once, then asked about any day at the cost of a few passes over arrays.

What is known at a cut needs everything before it. Counting it again from tables of strings costs more than all the rest of a
day's examples; here ids are positions and events are sorted by user and item once, so that a range of days shares that work.
Holds no rule of a task. Our choice.

Shape legend: E events, P pairs of a user and an item, U users, I items.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.data.events import positive_events

_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class Purchases:
    """What counts as taking an item (purchases and ratings), coded; rows of one source.

    Attributes:
        users, items: their ids, sorted; user and item numbers are positions in them.
        user_E, item_E, day_E, time_E: numbers, days since 1970 (int32) and times in units of the events, oldest first.
        start: first day of the events, those that are no purchases included; None without events.
    """

    users: pl.Series
    items: pl.Series
    user_E: np.ndarray
    item_E: np.ndarray
    day_E: np.ndarray
    time_E: np.ndarray
    start: date | None

    @classmethod
    def of(cls, events: "Events") -> "Purchases":
        """The purchases of accepted events in any order; given purchases come back as they are."""
        if isinstance(events, Purchases):
            return events
        start: date | None = events[c.EVENT_DATE].min()  # type: ignore[assignment]
        taken = positive_events(events.select(c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT_DATE, c.EVENT_TYPE))
        if not (taken[c.EVENT_DATE].is_sorted() and taken[c.EVENT_TIME].is_sorted()):
            taken = taken.sort(c.EVENT_DATE, c.EVENT_TIME)
        users, items = (taken[name].unique().sort() for name in (c.USER_ID, c.ITEM_ID))
        return cls(
            users,
            items,
            positions_in(users, taken[c.USER_ID]),
            positions_in(items, taken[c.ITEM_ID]),
            taken[c.EVENT_DATE].to_physical().to_numpy(),
            taken[c.EVENT_TIME].to_physical().cast(pl.Int64).to_numpy(),
            start,
        )

    def between(self, first: date, last: date) -> slice:
        """Positions of the events of the days first to last, both included."""
        edges = np.array([day_number(first), day_number(last) + 1], dtype=self.day_E.dtype)
        return slice(*np.searchsorted(self.day_E, edges).tolist())

    def pairs_between(self, first: date, last: date) -> tuple[np.ndarray, np.ndarray]:
        """User and item numbers of the distinct pairs of the days first to last, sorted by both."""
        days = self.between(first, last)
        pair = distinct(self._pair(self.user_E[days], self.item_E[days]))
        return pair // max(len(self.items), 1), pair % max(len(self.items), 1)

    def users_of(self, kind_I: np.ndarray, kinds: int, first: date, last: date) -> np.ndarray:
        """Distinct users of each kind of item in the days first to last, int64 (kinds,); kind -1 is counted nowhere."""
        days = self.between(first, last)
        kind = kind_I[self.item_E[days]].astype(np.int64)
        known = kind >= 0
        width = max(len(self.users), 1)
        pair = distinct(kind[known] * width + self.user_E[days][known])
        return np.bincount(pair // width, minlength=kinds)

    @cached_property
    def by_pair(self) -> "ByPair":
        """The events sorted by user, item and time."""
        pair = self._pair(self.user_E, self.item_E)
        order = stable_order(pair)
        start = starts_of(pair[order])
        number = np.zeros(len(order), dtype=np.int32)
        number[start[1:]] = 1
        rank = np.cumsum(np.diff(self.time_E, prepend=self.time_E[:1]) != 0)
        return ByPair(
            self.user_E[order[start]], self.item_E[order[start]], np.cumsum(number, dtype=np.int32), self.day_E[order],
            rank.astype(np.int32)[order],
        )  # fmt: skip

    def _pair(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return user.astype(np.int64) * len(self.items) + item


Events: TypeAlias = pl.DataFrame | Purchases
"""Accepted events as a frame, or the purchases made of them: functions that answer for many days take the latter once."""


@dataclass(frozen=True)
class ByPair:
    """Events sorted by user, item and time.

    Attributes:
        user_P, item_P: numbers of each pair.
        pair_E, day_E, rank_E: of each event: its pair, its day and the place of its time among all times; int32.
    """

    user_P: np.ndarray
    item_P: np.ndarray
    pair_E: np.ndarray
    day_E: np.ndarray
    rank_E: np.ndarray


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - _EPOCH).days


def positions_in(sorted_ids: pl.Series, values: pl.Series) -> np.ndarray:
    """Position of each value in `sorted_ids` (distinct), -1 for those it does not hold; int32."""
    ids = pl.DataFrame({_ID: sorted_ids}, schema={_ID: pl.String}).with_row_index(_AT)
    asked = pl.DataFrame({_ID: values}, schema={_ID: pl.String})
    found = asked.join(ids, on=_ID, how="left", maintain_order="left")
    return found[_AT].cast(pl.Int32).fill_null(-1).to_numpy()


_ID: Final = "id"
_AT: Final = "at"


def distinct(keys: np.ndarray) -> np.ndarray:
    """The distinct values, sorted."""
    ordered = np.sort(keys)
    return ordered[starts_of(ordered)]


def starts_of(values: np.ndarray) -> np.ndarray:
    """Positions at which a run of equal values starts."""
    is_start = np.ones(len(values), dtype=bool)
    is_start[1:] = values[1:] != values[:-1]
    return np.flatnonzero(is_start)


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Positions that sort whole numbers >= 0, those of equal ones in their order.

    Key and position share one number where they fit into it: sorting numbers is several times faster than sorting positions.
    """
    bits = len(keys).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits < 64:
        return np.sort(keys << bits | np.arange(len(keys))) & ((1 << bits) - 1)
    order = np.argsort(keys)  # unstable
    ordered = keys[order]
    run = np.cumsum(np.diff(ordered, prepend=ordered[:1]) != 0)
    return np.sort(run << bits | order) & ((1 << bits) - 1)


def largest_first(group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Positions that sort by group and within one by value, largest first, those of equal ones in their order.

    Both are whole numbers >= 0.
    """
    largest = int(value.max(initial=0))
    below = largest - value.astype(np.int64)
    if (int(group.max(initial=0)) + 1) * (largest + 1) < 2**63:
        return stable_order(group.astype(np.int64) * (largest + 1) + below)
    order = stable_order(below)
    return order[stable_order(group[order].astype(np.int64))]
