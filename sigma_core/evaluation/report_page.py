"""The report of a judged day as one HTML page that needs nothing else: plots are inline SVG, no script, no network.

It shows the numbers of `report.json`; places of what is drawn are computed in `report_drawings.py`. Words that a reader needs to
judge the numbers stand beside them. Our choice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

from sigma_core.artifacts import digest_json
from sigma_core.evaluation.diagnosis import SEGMENTS
from sigma_core.evaluation.filtered_plans import FILTERED
from sigma_core.evaluation.protocol import UNSEEN_PHRASE
from sigma_core.evaluation.report import MAIN_METRIC, ROWS, strongest, verdict
from sigma_core.evaluation.report_drawings import forest, reliability_chart, variety
from sigma_core.evaluation.requests import SIGMA
from sigma_core.instruction.tasks import TASKS

TEMPLATE: Final = Path(__file__).with_name("report_page.jinja")
VARIETY: Final = ("coverage@20", "novelty@20", "diversity@20")
KNOWN: Final = tuple(row for row in ROWS if row not in SEGMENTS)  # cold is a segment and shown as one


def report_page(values: dict[str, Any]) -> str:
    """The page of `EvalReport.values`; tasks without a target that day are named and not drawn."""
    tasks = {
        name: values["tasks"][name] for name in TASKS if name in values["tasks"]
    }  # JSON has them by name
    defined = {name: task for name, task in tasks.items() if task["num_targets"] is not None}
    filtered = {name: values["filtered"][name] for name in FILTERED if name in values["filtered"]}
    row_targets = values["details"]["row_targets"]
    calibration = values["calibration"]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["share"] = lambda value: "-" if value is None else f"{value:.4f}"
    environment.filters["signed"] = lambda value: "-" if value is None else f"{value:+.4f}"
    environment.filters["digits"] = lambda value: (
        "-" if value is None else f"{value:.{4 if abs(value) < 1 else 2}f}"
    )
    environment.filters["named"] = lambda name: name.replace("_", " ")
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        values=values,
        details=values["details"],
        metric=MAIN_METRIC,
        tasks=[_task(name, task) | _parts(task, row_targets[name]) for name, task in defined.items()],
        confined=[_task(name, task) for name, task in filtered.items()],
        undefined=[name for name in tasks if name not in defined],
        variety=variety(defined.get("just_for_you"), VARIETY),
        calibration=calibration,
        reliability=reliability_chart(calibration["bins"]) if calibration else "",
        unseen_phrase=UNSEEN_PHRASE,
        settings=settings_of(values["settings"]),
        data=data_rows(values["data"]),
        sigma=SIGMA,
    )


def _task(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one task, or of one confined row."""
    best = strongest(task)
    own = {model: metrics[MAIN_METRIC] or (None, None) for model, metrics in task["model_intervals"].items()}
    models = sorted(
        ((model, metrics[MAIN_METRIC]) for model, metrics in task["models"].items()),
        key=lambda pair: -(pair[1] or 0.0),
    )
    most = max((max(value or 0.0, own[model][1] or 0.0) for model, value in models), default=0.0) or 1.0

    def percent(value: float | None) -> float:
        return round(100 * (value or 0.0) / most, 1)

    mine = task["models"][SIGMA][MAIN_METRIC]
    theirs = task["models"][best][MAIN_METRIC] if best else None
    return {
        "key": name,
        "name": name.replace("_", " "),
        "targets": task["num_targets"],
        "households": task["num_households"],
        "ceiling": task["ceiling@20"],
        "value": mine,
        "interval": own[SIGMA],
        "best": best,
        "best_value": theirs,
        "best_interval": own[best] if best else (None, None),
        "difference": mine - theirs if best else None,
        "difference_interval": task["intervals"][best][MAIN_METRIC] if best else (None, None),
        "p": task["p_values"][best][MAIN_METRIC] if best else None,
        "verdict": verdict(task, best),
        "bars": [
            {"model": model, "value": value, "low": own[model][0], "high": own[model][1], "width": percent(value),
             "from": percent(own[model][0]), "span": round(percent(own[model][1]) - percent(own[model][0]), 1)}
            for model, value in models
        ],
        "forest": forest(task),
        "lift": task["instruction_lift"] if _measured(task["instruction_lift"]) else None,
    }  # fmt: skip


def _measured(lift: Mapping[str, Any] | None) -> bool:
    return lift is not None and any(one["value"] is not None for one in lift.values())


def _parts(task: dict[str, Any], row_targets: Mapping[str, int]) -> dict[str, Any]:
    """Each model's recall on parts of the targets: had before, new to the household, of a query's those asked for by an unseen
    phrase, and by segment; bars share one scale.
    """
    rows = (*KNOWN, UNSEEN_PHRASE) if UNSEEN_PHRASE in task["rows"] else KNOWN
    recall = {row: {m: scores[MAIN_METRIC] for m, scores in task["rows"][row].items()} for row in rows}
    recall |= {segment: task["segments"][segment]["recall@20"] for segment in SEGMENTS}
    most = max((value or 0.0 for cells in recall.values() for value in cells.values()), default=0.0) or 1.0
    targets = [row_targets[row] for row in rows] + [task["segments"][name]["targets"] for name in SEGMENTS]
    return {
        "columns": list(zip(recall, targets, strict=True)),
        "rows": rows,
        "parts": [
            {
                "model": model,
                "cells": [
                    (cells[model], round(100 * (cells[model] or 0.0) / most, 1)) for cells in recall.values()
                ],
            }
            for model, _ in sorted(task["models"].items(), key=lambda pair: -(pair[1][MAIN_METRIC] or 0.0))
        ],
        "share_of_lists": [task["segments"][segment]["share_of_lists"][SIGMA] for segment in SEGMENTS],
    }


def settings_of(settings: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Section -> its settings in words; what stands in no section is of "run"."""
    sections = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    run = {name: value for name, value in settings.items() if name not in sections}
    return {
        name: [
            (key.replace("_", " "), "not set" if value is None else str(value)) for key, value in of.items()
        ]
        for name, of in {"run": run, **sections}.items()
    }


def data_rows(data: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row an input: how many partitions, first and last, and the digest; that of all digests where there are several."""
    partitions: dict[str, dict[str, str]] = {}
    for name, digest in sorted(data.items()):
        asset, _, partition = name.partition("/")
        group, key = (name, "") if asset == "source" else (asset, partition)
        partitions.setdefault(group, {})[key] = digest
    return [
        {
            "name": asset,
            "count": len(found),
            "first": min(found),
            "last": max(found),
            "digest": digest_json(found) if len(found) > 1 else next(iter(found.values())),
        }
        for asset, found in partitions.items()
    ]
