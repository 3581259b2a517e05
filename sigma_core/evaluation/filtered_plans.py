"""Second rows of the report: the same wishes with every ranker's lists confined to what the task is about.

The headline of a task has no hard filter. Here everyone may list only items of the long tail, of the named category, or
launched lately (cold), so that what is measured is order inside it. Asked for the households of the lift. Source: tasks.md.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.evaluation.metrics import BoolArray, target_sets
from sigma_core.evaluation.request_plan import NOTHING, PLAIN, RequestPlan, TaskPlan
from sigma_core.evaluation.requests import EvalRequest, IntArray

COLD: Final = "cold"
FILTERED: Final = ("longtail", "category", COLD)


def filtered_plans(plan: RequestPlan, catalog: pl.DataFrame, users: frozenset[str]) -> dict[str, TaskPlan]:
    """A plan for each of `FILTERED`, over the same requests: `exclude` also holds all items outside.

    One category request of a household, chosen by hash, stands for all of them: there are many, and order is what counts.
    `cold` are the just-for-you requests of households that took an item launched lately, with those targets alone. Nothing is
    lifted in these plans, and their `asked` counts from 0.

    Args:
        plan: of the day.
        catalog: ItemCatalog frame.
        users: households that are asked.
    """
    tail, new = (catalog[name].to_numpy() for name in (c.IS_TAIL, c.IS_NEW))
    outside: dict[str, IntArray] = {}

    def others(key: str, inside: BoolArray) -> IntArray:
        if key not in outside:
            outside[key] = np.flatnonzero(~inside).astype(np.int32)
        return outside[key]

    categories = catalog[c.CATEGORY].fill_null("").str.to_lowercase()

    def in_category(request: EvalRequest) -> IntArray:
        name = str(request.slots.get("category", request.focus)).lower()
        return others(f"category {name}", (categories == name).to_numpy())

    def of(task: str) -> list[EvalRequest]:
        known = plan.tasks.get(task)
        return [r for r in known.requests if r.user_id in users] if known else []

    one: dict[str, EvalRequest] = {}
    for request in sorted(of("category"), key=_by_hash):
        one.setdefault(request.user_id, request)
    cold = (replace(r, targets=r.targets[new[r.targets]]) for r in of(PLAIN))
    return {
        "longtail": _plan(of("longtail"), lambda _: others("tail", tail)),
        "category": _plan([one[user] for user in sorted(one)], in_category),
        COLD: _plan((r for r in cold if r.targets.size), lambda _: others(COLD, new)),
    }


def _by_hash(request: EvalRequest) -> bytes:
    """Order of a household's requests that knows nothing of their words, so that no category is preferred for its name."""
    words = json.dumps([request.user_id, request.focus, request.slots], sort_keys=True)
    return blake2b(words.encode(), digest_size=8).digest()


def _plan(requests: Iterable[EvalRequest], outside: Callable[[EvalRequest], IntArray]) -> TaskPlan:
    kept = [_confined(request, outside(request)) for request in requests]
    user_ids, users = np.unique(np.array([r.user_id for r in kept], dtype=object), return_inverse=True)
    none = NOTHING.astype(np.int64)
    return TaskPlan(
        kept, target_sets([r.targets for r in kept]), users.astype(np.int64), list(user_ids),
        np.arange(len(kept)), none, none, none, none,
    )  # fmt: skip


def _confined(request: EvalRequest, outside: IntArray) -> EvalRequest:
    both = np.union1d(request.exclude, outside).astype(np.int32) if request.exclude.size else outside
    return replace(request, exclude=both)
