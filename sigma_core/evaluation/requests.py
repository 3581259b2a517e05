"""What a ranker is asked and what it must answer; and the check that it did.

Holds the request and the ranker contract only. Which requests a task has is `protocol.py`'s business, how good an
answer is `metrics.py`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int32]

# Shape legend: R requests, n length of a list, N items of the catalog, H users.
NO_ITEM: Final = -1  # padding of a list that is shorter than n
SIGMA: Final = "sigma"  # how reports name the ranker that is judged
COMMON: Final = (
    "popularity",
    "personal_frequency",
    "personal_decayed",
    "item_knn",
)  # opponents of every task


@dataclass(frozen=True, slots=True, eq=False)
class EvalRequest:
    """One question about one user on the day that is judged.

    Attributes:
        user_id: whose history and profile the ranker may use.
        task: name of the task.
        instruction: the request in words, as a person would type it.
        focus: what it is about ("soda", "Halloween"); "" when general.
        slots: the values the wording names (what an informed baseline may read besides `focus`).
        exclude: int32 catalog rows that must not be listed (the task's history filter), sorted.
        targets: int32 catalog rows that are right, sorted. A ranker must not look at them.
    """

    user_id: str
    task: str
    instruction: str
    focus: str
    slots: Mapping[str, Any]
    exclude: IntArray
    targets: IntArray


Ranker: TypeAlias = Callable[[list[EvalRequest]], IntArray]
"""Answers R requests with int32 [R, n] catalog rows, best first, distinct, padded with -1 at the end."""


@runtime_checkable
class Scored(Protocol):
    """A ranker that also says how probable each listed item is."""

    def scored(self, requests: list[EvalRequest]) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """The ranker's lists, and the probability of each listed item, [R, n]; 0 pads."""
        ...


def check_lists(lists: IntArray, requests: Sequence[EvalRequest], num_items: int, name: str) -> None:
    """Accept what a ranker returned, or say what is wrong with it.

    Raises:
        ValueError: wrong shape or dtype, rows outside the catalog, an item listed twice, or an excluded item.
    """
    if lists.ndim != 2 or len(lists) != len(requests) or lists.dtype.kind != "i":
        raise ValueError(
            f"ranker {name!r} returned {lists.dtype} {lists.shape}; needed integers [{len(requests)}, n], a row a request."
        )
    if lists.size and (lists.min() < NO_ITEM or lists.max() >= num_items):
        raise ValueError(
            f"ranker {name!r} listed rows {lists.min()}..{lists.max()}; the catalog has rows 0..{num_items - 1} "
            f"and {NO_ITEM} pads."
        )
    ordered = np.sort(lists, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ITEM)).any(axis=1)
    if twice.any():
        first = int(np.flatnonzero(twice)[0])
        raise ValueError(
            f"ranker {name!r} listed an item twice in {int(twice.sum())} of {len(lists)} lists (first: user "
            f"{requests[first].user_id}, task {requests[first].task}); recall would count it twice."
        )
    marks = np.zeros(num_items + 1, np.bool_)  # the last one stays False: it is that of the padding
    for row, request in zip(lists, requests, strict=True):
        if request.exclude.size:
            marks[request.exclude] = True
            shown = marks[row].any()
            marks[request.exclude] = False
            if shown:
                raise ValueError(
                    f"ranker {name!r} listed an item that task {request.task} excludes for user {request.user_id}; "
                    "every ranker gets the same history filter."
                )
