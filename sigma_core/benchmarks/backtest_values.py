"""The numbers of a backtest: days judged one by one and pooled, SIGMA beside every opponent, with intervals.

Works on sums by household that were kept of each day; a household's days are drawn together. Knows no model and no root.
Source: tasks.md, "Dates".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

from sigma_core.benchmarks.arm_scores import differences, pooled, rounded
from sigma_core.evaluation.metrics import Ratio
from sigma_core.evaluation.requests import SIGMA
from sigma_core.evaluation.significance import holm, nothing_like

MAIN: Final = "recall@20"
METRICS: Final = ("recall@1", "recall@5", MAIN, "macro_recall@20", "any_hit@20", "ndcg@20")
PARTS: Final = ("repeat", "new", "cold")
ROLES: Final[dict[date, str]] = {
    date(2017, 2, 6): "judge",
    date(2017, 4, 8): "choose",
    date(2017, 6, 26): "choose",
    date(2017, 10, 23): "judge",
    date(2017, 11, 15): "choose",
    date(2017, 12, 17): "judge",
}
"""tasks.md: settings are chosen on three dates and judged on the other three."""


@dataclass(frozen=True)
class TaskSums:
    """One task of one day: sums by household of each ranker.

    Attributes:
        users: H households.
        models: ranker -> metric, or `part of the targets/metric` -> sums [H].
        oracles: rankers that know what no request says; shown, never compared with.
    """

    users: list[str]
    models: dict[str, dict[str, Ratio]]
    oracles: frozenset[str] = frozenset()


class Enough(NamedTuple):
    """What a row needs to be called a win or a loss."""

    targets: int
    households: int


DaySums = dict[str, TaskSums]  # by task; "longtail, confined" and the like are tasks too


def backtest_values(days: Mapping[date, DaySums], samples: int, seed: int, enough: Enough) -> dict[str, Any]:
    """The JSON value: `dates` {day: {task: ...}}, and `pooled` {judge | choose | all: {task: ...}} over days of a role.

    A task holds `models` {ranker: {metric: {mean, low, high}}}, `differences` (SIGMA minus each opponent, p Holm-corrected
    over the tasks and opponents of one table), `parts` (recall@20 on repeats, new purchases and launches) and the strongest
    opponent at recall@20.
    """
    groups = {role: [d for d in days if ROLES.get(d, "other") == role] for role in ("judge", "choose")}
    groups["all"] = list(days)
    return rounded(
        {
            "dates": {day.isoformat(): table_of([days[day]], samples, seed, enough) for day in days},
            "pooled": {
                role: {
                    "dates": [d.isoformat() for d in of],
                    **_tasks(table_of([days[d] for d in of], samples, seed, enough)),
                }
                for role, of in groups.items()
                if of
            },
            "roles": {day.isoformat(): ROLES.get(day, "other") for day in days},
        }
    )


def _tasks(table: dict[str, Any]) -> dict[str, Any]:
    return {"tasks": table}


def table_of(days: Sequence[DaySums], samples: int, seed: int, enough: Enough) -> dict[str, Any]:
    """Task -> its numbers over the days together; a ranker must have taken part on all of a task's days."""
    names = dict.fromkeys(task for day in days for task in day)
    out = {}
    for task in names:
        with_task = [day[task] for day in days if task in day]
        common = [m for m in with_task[0].models if all(m in one.models for one in with_task)]
        sums = {m: pooled([(one.users, one.models[m]) for one in with_task]) for m in common}
        oracles = frozenset().union(*(one.oracles for one in with_task))
        out[task] = _judged(sums, oracles, samples, seed, enough)
    _correct(out)
    return out


def _judged(
    sums: Mapping[str, Mapping[str, Ratio]],
    oracles: frozenset[str],
    samples: int,
    seed: int,
    enough: Enough,
) -> dict[str, Any]:
    flat = {f"{m}|{name}": ratio for m, of in sums.items() for name, ratio in of.items()}
    means = differences(flat, {key: nothing_like(r) for key, r in flat.items()}, samples, seed)
    mine = {key: sums[SIGMA][key.split("|", 1)[1]] for key in flat}
    against = differences(mine, flat, samples, seed)
    main = sums[SIGMA][MAIN]

    def pick(
        found: Mapping[str, Any], model: str, names: Sequence[str], keep: Sequence[str]
    ) -> dict[str, Any]:
        return {
            name: {k: found[f"{model}|{name}"][k] for k in keep}
            for name in names
            if f"{model}|{name}" in found
        }

    parts = [f"{part}/{MAIN}" for part in PARTS]
    opponents = [m for m in sums if m != SIGMA and m not in oracles]
    interval, difference = ("mean", "low", "high"), ("mean", "low", "high", "p")
    values = {m: means[f"{m}|{MAIN}"]["mean"] for m in opponents}
    known = {m: v for m, v in values.items() if v is not None}
    targets, households = int(main.den.sum()), int((main.den > 0).sum())
    return {
        "targets": targets,
        "households": households,
        "underpowered": targets < enough.targets or households < enough.households,
        "models": {m: pick(means, m, METRICS, interval) for m in sums},
        "differences": {m: pick(against, m, METRICS, difference) for m in opponents},
        "parts": {m: pick(means, m, parts, interval) for m in sums},
        "part_differences": {m: pick(against, m, parts, difference) for m in opponents},
        "strongest": min(known, key=lambda m: (-known[m], m)) if known else None,
    }


def _correct(table: dict[str, Any]) -> None:
    """Holm over tasks and opponents, a family a metric, in place."""
    for metric in METRICS:
        cells = {
            f"{task}|{m}": of[metric]
            for task, found in table.items()
            for m, of in found["differences"].items()
            if metric in of and of[metric]["p"] is not None
        }
        for key, p in holm({name: cell["p"] for name, cell in cells.items()}).items():
            cells[key]["p"] = p


def backtest_markdown(values: Mapping[str, Any]) -> str:
    """The pooled tables first, then a table a day. Adds nothing to the JSON."""
    from sigma_core.evaluation.report_text import number, signed, table

    def cell(found: Mapping[str, float | None]) -> str:
        if found["mean"] is None:
            return "-"
        return f"{signed(found['mean'])} [{signed(found['low'])}, {signed(found['high'])}]"

    def shown(tasks: Mapping[str, Any]) -> list[str]:
        rows = []
        for name, task in tasks.items():
            best = task["strongest"]
            if best is None:
                continue
            parts = [
                cell(task["part_differences"][best].get(f"{part}/{MAIN}", {"mean": None})) for part in PARTS
            ]
            few = " (few)" if task["underpowered"] else ""
            rows.append(
                [
                    f"{name}{few}",
                    f"{task['targets']:,}",
                    number(task["models"][SIGMA][MAIN]["mean"]),
                    f"{number(task['models'][best][MAIN]['mean'])} {best}",
                    cell(task["differences"][best][MAIN]),
                    f"{task['differences'][best][MAIN]['p']:.4f}",
                    *parts,
                ]
            )
        header = ("task", "targets", SIGMA, "strongest opponent", "difference", "p", *PARTS)
        return table(header, rows)

    lines = [
        "# Backtest",
        "",
        f"{MAIN}; difference: SIGMA minus the opponent that is strongest on the task, 95 % interval over resampled households "
        "(a household's days together), p Holm-corrected over the tasks and opponents of the table. The last three columns are "
        "the difference to the same opponent on repeats, new purchases and launches.",
    ]
    for role, found in values["pooled"].items():
        lines += ["", f"## Pooled, {role}: {', '.join(found['dates'])}", "", *shown(found["tasks"])]
    for day, tasks in values["dates"].items():
        lines += ["", f"## {day} ({values['roles'][day]})", "", *shown(tasks)]
    return "\n".join(lines) + "\n"
