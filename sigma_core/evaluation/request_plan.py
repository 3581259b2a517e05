"""What is asked on the day that is judged: the requests of every task, and their other wordings, each asked once.

The headline request of a row of the example set is its first wording under the task's own history filter. For the
instruction lift the same row is asked without any filter, in its own wording, in the just-for-you wording and in one never
trained on: only the words may make the difference. Equal questions (a user's just-for-you wording stands beside each of their query requests) are one.
Source: tasks.md, "Does the instruction do anything?".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core import columns as c
from sigma_core.evaluation.metrics import TargetSets, codes_of, target_sets
from sigma_core.evaluation.requests import EvalRequest, IntArray
from sigma_core.evaluation.user_scores import PurchaseHistory
from sigma_core.instruction.tasks import TASKS, Task, render

PLAIN: Final = "just_for_you"  # the wording every other one is measured against
NOTHING: Final[IntArray] = np.empty(0, np.int32)


@dataclass(frozen=True)
class TaskPlan:
    """The questions of one task; every array holds positions in `RequestPlan.asked`.

    Attributes:
        requests: R headline requests, one a row of the example set.
        targets: of them.
        users: the user of each, as an index into the sorted distinct `user_ids`, [R].
        user_ids: the task's households.
        asked: the headline questions, [R].
        lifted: which of the R requests the lift is measured on, [L].
        right, plain, unseen: those L requests without a filter, in the task's wording, in the just-for-you wording, and in a
            held-out one of the task, [L].
    """

    requests: list[EvalRequest]
    targets: TargetSets
    users: npt.NDArray[np.int64]
    user_ids: list[str]
    asked: npt.NDArray[np.int64]
    lifted: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    plain: npt.NDArray[np.int64]
    unseen: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RequestPlan:
    """Every question once, a user's questions together, and what each task makes of the answers."""

    asked: list[EvalRequest]
    tasks: dict[str, TaskPlan]


def choose_users(user_ids: Sequence[str], most: int | None, seed: int) -> list[str]:
    """At most `most` of the users, by hash of seed and id, sorted; a smaller choice is part of every larger one."""

    def key(user_id: str) -> bytes:
        return blake2b(f"{seed}:evaluation:{user_id}".encode(), digest_size=8).digest()

    distinct = sorted(set(user_ids))
    return distinct if most is None else sorted(sorted(distinct, key=key)[:most])


class HistoryFilter:
    """Catalog rows that a task keeps out of everyone's lists, by user: computed once a user and policy."""

    def __init__(self, catalog: pl.DataFrame, history: PurchaseHistory) -> None:
        self._history = history
        self._group = codes_of(catalog[c.TEXT_GROUP])
        self._num_groups = int(self._group.max(initial=-1)) + 1
        self._known: dict[tuple[str, str], IntArray] = {}

    def rows(self, user_id: str, policy: str) -> IntArray:
        """Sorted rows for the policy none | items (taken before) | texts (of a text group taken before)."""
        if policy == "none":
            return NOTHING
        if (user_id, policy) not in self._known:
            items = np.sort(self._history.items_of(user_id))
            self._known[user_id, policy] = items if policy == "items" else self._same_text(items)
        return self._known[user_id, policy]

    def _same_text(self, items: IntArray) -> IntArray:
        had = np.zeros(self._num_groups, np.bool_)
        had[self._group[items]] = True
        return np.flatnonzero(had[self._group]).astype(np.int32)


def plan_requests(
    examples: pl.DataFrame,
    catalog: pl.DataFrame,
    history: PurchaseHistory,
    *,
    users: Sequence[str],
    lift_users: Sequence[str],
    seed: int,
) -> RequestPlan:
    """Lay out every question about `users`, with the lift's wordings for `lift_users`.

    Args:
        examples: rows of `build_examples(split="test")`; other users' rows are left out.
        catalog: ItemCatalog frame; targets must be in it.
        history: of the catalog, up to the day.
        users, lift_users: of `choose_users`.
        seed: chooses a user's held-out wording.
    """
    row_of = {item: row for row, item in enumerate(catalog[c.ITEM_ID])}
    chosen = examples.filter(pl.col(c.USER_ID).is_in(pl.Series(users, dtype=pl.String).implode()))
    book = _QuestionBook(HistoryFilter(catalog, history), seed)
    drafts = {}
    for name, task in TASKS.items():
        rows = chosen.filter(pl.col(c.TASK) == name).sort(c.USER_ID, c.FOCUS_TEXT, c.SLOTS)
        drafts[name] = _plan_task(task, rows, row_of, book, frozenset(lift_users))
    order = sorted(range(len(book.asked)), key=lambda i: book.asked[i].user_id)
    moved = np.empty(len(order), np.int64)
    moved[order] = np.arange(len(order))
    tasks = {
        name: replace(
            plan,
            asked=moved[plan.asked],
            right=moved[plan.right],
            plain=moved[plan.plain],
            unseen=moved[plan.unseen],
        )
        for name, plan in drafts.items()
    }
    return RequestPlan([book.asked[i] for i in order], tasks)


class _QuestionBook:
    """Questions asked so far; an equal one gets the same number."""

    def __init__(self, history_filter: HistoryFilter, seed: int) -> None:
        self.asked: list[EvalRequest] = []
        self._filter = history_filter
        self._seed = seed
        self._number: dict[tuple[str, str, str, str], int] = {}
        self._words: dict[tuple[str, int, str], str] = {}

    def exclude(self, user_id: str, task: Task) -> IntArray:
        return self._filter.rows(user_id, task.exclude_history)

    def number(self, request: EvalRequest, policy: str) -> int:
        """Position of the question; `policy` stands for its `exclude`."""
        key = (request.user_id, request.instruction, request.focus, policy)
        if key not in self._number:
            self._number[key] = len(self.asked)
            self.asked.append(request)
        return self._number[key]

    def words(self, task: Task, wording: int, slots_json: str) -> str:
        """The instruction text; rendered once, for thousands of requests differ in the user only."""
        key = (task.name, wording, slots_json)
        if key not in self._words:
            self._words[key] = render(task, wording, json.loads(slots_json))
        return self._words[key]

    def unseen_words(self, task: Task, user_id: str, slots_json: str) -> str:
        """The instruction in a held-out wording."""
        return self.words(task, unseen_wording(task, user_id, self._seed), slots_json)


def unseen_wording(task: Task, user_id: str, seed: int) -> int:
    """One of the task's held-out wordings, by hash of the user: each is heard by its share of them."""
    held_out = task.held_out_wordings()
    digest = blake2b(f"{seed}:unseen:{user_id}".encode(), digest_size=4).digest()
    return held_out[int.from_bytes(digest, "big") % len(held_out)]


def _plan_task(
    task: Task, rows: pl.DataFrame, row_of: Mapping[str, int], book: _QuestionBook, lift_users: frozenset[str]
) -> TaskPlan:
    requests: list[EvalRequest] = []
    asked: list[int] = []
    lifted: list[tuple[int, int, int, int]] = []  # request, right, plain, unseen
    for user_id, wording, slots_json, focus, items in rows.select(
        c.USER_ID, c.WORDING, c.SLOTS, c.FOCUS_TEXT, c.TARGETS
    ).iter_rows():
        slots: dict[str, Any] = json.loads(slots_json)
        targets = np.array(sorted(row_of[item] for item in items), np.int32)
        exclude = book.exclude(user_id, task)
        request = EvalRequest(
            user_id, task.name, render(task, wording, slots), focus, slots, exclude, targets
        )
        requests.append(request)
        asked.append(book.number(request, task.exclude_history))
        if user_id in lift_users and task.name != PLAIN:
            right = replace(request, exclude=NOTHING)
            plain = replace(
                right, task=PLAIN, instruction=book.words(TASKS[PLAIN], 0, "{}"), focus="", slots={}
            )
            unseen = replace(right, instruction=book.unseen_words(task, user_id, slots_json))
            numbers = (book.number(right, "none"), book.number(plain, "none"), book.number(unseen, "none"))
            lifted.append((len(requests) - 1, *numbers))
    user_ids, users = np.unique(np.array([r.user_id for r in requests], dtype=object), return_inverse=True)
    lift = np.array(lifted, np.int64).reshape(-1, 4)
    return TaskPlan(
        requests,
        target_sets([r.targets for r in requests]),
        users.astype(np.int64),
        list(user_ids),
        np.array(asked, np.int64),
        lift[:, 0],
        lift[:, 1],
        lift[:, 2],
        lift[:, 3],
    )
