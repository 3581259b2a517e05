"""The report of a judged day: one JSON value, and what is made from it: Markdown, plots, summary, problems.

`report.json` has the shape that `sigma evaluate --json` promises; all tasks are always there, what is undefined is
null. Nothing is computed here but rounding. Words are in `report_text.py`, plots in `report_plots.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from sigma_core.artifacts import digest_json, read_json, write_json
from sigma_core.evaluation.diagnosis import SEGMENTS
from sigma_core.evaluation.metrics import METRICS
from sigma_core.evaluation.requests import COMMON, SIGMA
from sigma_core.instruction.tasks import TASKS

REPORT_JSON: Final = "report.json"
REPORT_MARKDOWN: Final = "report.md"
REPORT_PAGE: Final = "report.html"
RECALL_PLOT: Final = "recall.png"
LIFT_PLOT: Final = "lift.png"
MAIN_METRIC: Final = "recall@20"
ROWS: Final = ("repeat", "new", "cold")
WORDINGS: Final = ("seen", "unseen")
_DECIMALS: Final = 6  # beyond these, sums differ with the number of threads


def undefined_task(is_general: bool, models: Sequence[str], opponents: Sequence[str]) -> dict[str, Any]:
    """A task's part of the report when the day has no target for it: every key, every value None.

    Args:
        is_general: it is the task that the lift of the others is measured against, so it has none.
        models: names under `models`, `model_intervals`, `rows` and `segments`.
        opponents: names under `intervals` and `p_values`.
    """

    def nothing() -> dict[str, None]:
        return dict.fromkeys(METRICS)

    return {
        "num_targets": None,
        "num_households": None,
        "underpowered": None,
        "ceiling@20": None,
        "models": {name: nothing() for name in models},
        "model_intervals": {name: nothing() for name in models},
        "intervals": {name: nothing() for name in opponents},
        "p_values": {name: nothing() for name in opponents},
        "instruction_lift": None
        if is_general
        else {w: dict.fromkeys(("value", "low", "high")) for w in WORDINGS},
        "rows": {row: {name: nothing() for name in models} for row in ROWS},
        "segments": {
            segment: {
                "targets": None,
                "recall@20": dict.fromkeys(models),
                "share_of_lists": dict.fromkeys(models),
            }
            for segment in SEGMENTS
        },
    }


@dataclass(frozen=True)
class EvalReport:
    """The numbers of one judged day, as the JSON value of `report.json`; floats rounded to six decimals."""

    values: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _rounded(self.values))

    def to_json(self) -> dict[str, Any]:
        """The JSON value: as_of, horizon_days, tasks, filtered, catalog, details, calibration, examples, settings, data."""
        return self.values

    def markdown(self) -> str:
        """The report in words and tables."""
        from sigma_core.evaluation.report_text import report_markdown

        return report_markdown(self.values)

    def save(self, directory: Path) -> None:
        """Write `report.json`, `report.md`, `report.html`, `recall.png`, `lift.png`."""
        from sigma_core.evaluation.report_page import report_page
        from sigma_core.evaluation.report_plots import plot_lift, plot_recall

        write_json(directory / REPORT_JSON, self.values)
        (directory / REPORT_MARKDOWN).write_text(self.markdown())
        (directory / REPORT_PAGE).write_text(report_page(self.values), encoding="utf-8")
        plot_recall(self.values, directory / RECALL_PLOT)
        plot_lift(self.values, directory / LIFT_PLOT)

    def without_examples(self) -> Self:
        """The same report without example households: for readers outside, whom nobody's purchases concern."""
        return replace(self, values=self.values | {"examples": []})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back `report.json`."""
        return cls(read_json(directory / REPORT_JSON))

    def digest(self) -> str:
        """Digest of the JSON value; it holds no time and no path."""
        return digest_json(self.values)

    def summary(self) -> dict[str, Any]:
        """Day, households, and by defined task: targets, SIGMA's recall@20 and the strongest opponent's."""
        tasks = {}
        for name, task in self.values["tasks"].items():
            if task["num_targets"] is None:
                continue
            best = strongest(task)
            tasks[name] = {
                "targets": task["num_targets"],
                SIGMA: task["models"][SIGMA][MAIN_METRIC],
                "best_opponent": best,
                "best_opponent_value": task["models"][best][MAIN_METRIC] if best else None,
                "verdict": verdict(task, best),
            }
        return {
            "as_of": self.values["as_of"],
            "households": self.values["details"]["households"],
            "metric": MAIN_METRIC,
            "tasks": tasks,
        }

    def problems(self) -> list[str]:
        """Why the report must not be trusted; empty when it may be.

        A task is missing; a defined task lacks SIGMA, a common opponent or its comparison; a number is NaN or
        infinite; the general task has no target or too few.
        """
        out = [f"{path}: {value} is no finite number" for path, value in _not_finite(self.values)]
        tasks = self.values["tasks"]
        out += [f"task {name} is missing" for name in TASKS if name not in tasks]
        for name, task in tasks.items():
            lacking = [model for model in (SIGMA, *COMMON) if model not in task["models"]]
            out += [f"task {name} lacks the model {model}" for model in lacking]
            if task["num_targets"] is not None:
                out += [
                    f"task {name} has no interval against {b}" for b in COMMON if b not in task["intervals"]
                ]
        general = tasks.get("just_for_you", {})
        if general.get("underpowered") is not False:
            out.append(
                f"just_for_you has {general.get('num_targets') or 0} targets of {general.get('num_households') or 0} "
                "households, too few to judge anything by"
            )
        return out


def strongest(task: dict[str, Any]) -> str | None:
    """The opponent with the highest recall@20 among those SIGMA is compared with; by name when equal."""
    values = {name: task["models"][name][MAIN_METRIC] for name in task["intervals"] if name in task["models"]}
    known = {name: value for name, value in values.items() if value is not None}
    return min(known, key=lambda name: (-known[name], name)) if known else None


def verdict(task: Mapping[str, Any], opponent: str | None, alpha: float = 0.05) -> str:
    """SIGMA against an opponent: above | below (interval beside 0 and corrected p < alpha) | even | underpowered."""
    if opponent is None or task["num_targets"] is None:
        return "undefined"
    if task["underpowered"]:
        return "underpowered"
    low, high = task["intervals"][opponent][MAIN_METRIC]
    return side(low, high, task["p_values"][opponent][MAIN_METRIC], alpha)


def side(low: float, high: float, p: float, alpha: float = 0.05) -> str:
    """Where a difference lies: above | below where its interval leaves zero out and p < alpha, else even."""
    if p >= alpha or low <= 0 <= high:
        return "even"
    return "above" if low > 0 else "below"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(float(value), _DECIMALS) + 0.0 if isinstance(value, float) else value


def _not_finite(value: Any, path: str = "report") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, value
