"""Example recommendations of a judged day: what a few households took, what was asked, and SIGMA's list with the hits marked.

Households are chosen by hash, so nobody picked those that look good. Reads the answers of the protocol and asks nothing anew.
"""

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.evaluation.diagnosis import SEGMENTS, segments_of
from sigma_core.evaluation.request_plan import PLAIN, choose_users
from sigma_core.evaluation.requests import NO_ITEM, SIGMA

if TYPE_CHECKING:
    from sigma_core.evaluation.protocol import DayJudge, DayLists
    from sigma_core.evaluation.request_plan import TaskPlan

HOUSEHOLDS: Final = 2
EXAMPLE_TASKS: Final = (PLAIN, "query", "discover")
SHOWN: Final = 10  # of a list
HISTORY: Final = 8  # items, the last ones
GONE: Final = "no longer in the catalog"  # what a report knows of an item that left
_DECIMALS: Final = 4  # of a probability: beyond these, it differs with the number of threads


def examples_of(judge: "DayJudge", lists: "DayLists") -> list[dict[str, Any]]:
    """One entry a household: `user`, `purchases`, `history` (latest first), `lists` (one a task it has targets of).

    Households that have targets of all `EXAMPLE_TASKS` come first, if there are enough of them. `probability` is None where SIGMA
    was a ranker without one. An item of the history that the day's catalog lacks is named by its ID and said to be gone.
    """
    plans = {task: plan for task in EXAMPLE_TASKS if (plan := judge.plan.tasks[task]).requests}
    if PLAIN not in plans:
        return []
    rich = set.intersection(*(set(plan.user_ids) for plan in plans.values()))
    pool = sorted(rich) if len(rich) >= HOUSEHOLDS else plans[PLAIN].user_ids
    titles = judge.day.catalog[c.TITLE].to_list()
    title_of = dict(zip(judge.day.catalog[c.ITEM_ID], titles, strict=True))
    segment = segments_of(judge.day.catalog)
    out = []
    for user in choose_users(pool, HOUSEHOLDS, judge.config.runtime.seed):
        taken = judge.day.history.filter(pl.col(c.USER_ID) == user).sort(c.EVENT_DATE, maintain_order=True)
        last = taken.reverse().unique(c.ITEM_ID, keep="first", maintain_order=True).head(HISTORY)
        out.append(
            {
                "user": user,
                "purchases": taken.height,
                "history": [
                    {"title": title_of.get(item) or f"{item}, {GONE}", "date": day.isoformat()}
                    for item, day in last.select(c.ITEM_ID, c.EVENT_DATE).iter_rows()
                ],
                "lists": [
                    _list(plan, plan.user_ids.index(user), lists, task, titles, segment)
                    for task, plan in plans.items()
                    if user in plan.user_ids
                ],
            }
        )
    return out


def _list(
    plan: "TaskPlan", user: int, lists: "DayLists", task: str, titles: list[str], segment: Any
) -> dict[str, Any]:
    """The household's first request of the task and the head of its list."""
    number = int((plan.users == user).argmax())
    request, rows = plan.requests[number], lists.tasks[task][SIGMA][number]
    right = set(request.targets.tolist())
    listed = [(place, int(row)) for place, row in enumerate(rows) if row != NO_ITEM]
    scores = None if lists.scores is None else lists.scores[plan.asked[number]]
    return {
        "task": task,
        "instruction": request.instruction,
        "targets": len(right),
        "listed": len(listed),
        "hits": sum(row in right for _, row in listed),
        "items": [
            {
                "title": titles[row],
                "probability": None if scores is None else round(float(scores[place]), _DECIMALS),
                "segment": SEGMENTS[segment[row]],
                "hit": row in right,
            }
            for place, row in listed[:SHOWN]
        ],
    }
