"""The report of a judged day as one HTML page that needs nothing else: plots are inline SVG, no script, no network.

It shows the numbers of `report.json` and computes places on a canvas, nothing more. Words that a reader needs to judge the numbers
stand beside them. Our choice.
"""

from pathlib import Path
from typing import Any, Final

import jinja2

from sigma_core.evaluation.report import MAIN_METRIC, ROWS, strongest, verdict
from sigma_core.evaluation.requests import SIGMA

TEMPLATE: Final = Path(__file__).with_name("report_page.jinja")
ROW_HEIGHT: Final = 22
WIDTH: Final = 470  # of a plot, in SVG units
LABELS: Final = 165  # of them, for names
FRONTIER: Final = ("coverage@20", "novelty@20", "diversity@20")


def report_page(values: dict[str, Any]) -> str:
    """The page of `EvalReport.values`; tasks without a target that day are named and not drawn."""
    defined = {name: task for name, task in values["tasks"].items() if task["num_targets"] is not None}
    tasks = [_task(name, task) for name, task in defined.items()]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["share"] = lambda value: "-" if value is None else f"{value:.4f}"
    return environment.from_string(TEMPLATE.read_text()).render(
        values=values,
        details=values["details"],
        metric=MAIN_METRIC,
        tasks=tasks,
        undefined=[name for name in values["tasks"] if name not in defined],
        frontiers=[plot for name in FRONTIER if (plot := frontier(defined.get("just_for_you"), name))],
        rows=ROWS,
        sigma=SIGMA,
    )


def _task(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one task."""
    best = strongest(task)
    models = sorted(
        ((model, metrics[MAIN_METRIC]) for model, metrics in task["models"].items()),
        key=lambda pair: -(pair[1] or 0.0),
    )
    most = max((value or 0.0 for _, value in models), default=0.0) or 1.0
    return {
        "name": name.replace("_", " "),
        "targets": task["num_targets"],
        "households": task["num_households"],
        "ceiling": task["ceiling@20"],
        "value": task["models"][SIGMA][MAIN_METRIC],
        "best": best,
        "best_value": task["models"][best][MAIN_METRIC] if best else None,
        "verdict": verdict(task, best),
        "bars": [(model, value, round(100 * (value or 0.0) / most, 1)) for model, value in models],
        "forest": forest(task),
        "segments": _segments(task),
        "lift": task["instruction_lift"],
    }


def forest(task: dict[str, Any]) -> dict[str, Any]:
    """SIGMA minus each opponent: places of the points and of their 95 % intervals on a line with its zero."""
    mine = task["models"][SIGMA][MAIN_METRIC]
    rows = []
    for name, metrics in task["intervals"].items():
        interval, other = metrics[MAIN_METRIC], task["models"][name][MAIN_METRIC]
        if interval is not None and other is not None and mine is not None:
            rows.append((name, mine - other, interval[0], interval[1]))
    reach = max((abs(bound) for _, _, low, high in rows for bound in (low, high)), default=0.0) or 1.0

    def x(value: float) -> float:
        return round(LABELS + (WIDTH - LABELS - 10) * (0.5 + 0.5 * value / reach), 1)

    return {
        "width": WIDTH,
        "height": ROW_HEIGHT * len(rows) + 24,
        "zero": x(0.0),
        "reach": reach,
        "rows": [
            {"name": name, "y": ROW_HEIGHT * i + 14, "x": x(value), "low": x(low), "high": x(high), "value": value,
             "side": "above" if low > 0 else "below" if high < 0 else "even"}
            for i, (name, value, low, high) in enumerate(rows)
        ],
    }  # fmt: skip


def _segments(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Each model's recall on targets the household had before, new to it, and new to everyone; bars share one scale."""
    cells = {
        row: {model: metrics[MAIN_METRIC] for model, metrics in task["rows"][row].items()} for row in ROWS
    }
    most = max((value or 0.0 for row in cells.values() for value in row.values()), default=0.0) or 1.0
    return [
        {
            "model": model,
            "cells": [
                (row, cells[row][model], round(100 * (cells[row][model] or 0.0) / most, 1)) for row in ROWS
            ],
        }
        for model in cells[ROWS[0]]
    ]


def frontier(task: dict[str, Any] | None, metric: str) -> dict[str, Any] | None:
    """Recall against a measure of variety, a point a model; those no other model beats on both are the frontier."""
    if task is None:
        return None
    points = [
        (name, metrics[metric], metrics[MAIN_METRIC])
        for name, metrics in task["models"].items()
        if metrics.get(metric) is not None and metrics[MAIN_METRIC] is not None
    ]
    if not points:
        return None
    size, low, high = 300, min(p[1] for p in points), max(p[1] for p in points)
    top = max(p[2] for p in points) or 1.0
    span = (high - low) or 1.0

    def beaten(point: tuple[str, float, float]) -> bool:
        return any(p[1] >= point[1] and p[2] >= point[2] and p[1:] != point[1:] for p in points)

    return {
        "metric": metric,
        "size": size,
        "low": low,
        "high": high,
        "top": top,
        "points": [
            {"name": p[0], "x": round(40 + 200 * (p[1] - low) / span, 1), "y": round(260 - 230 * p[2] / top, 1),
             "value": p[1], "recall": p[2], "best": not beaten(p)}
            for p in points
        ],
    }  # fmt: skip
