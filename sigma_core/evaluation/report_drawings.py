"""What the report's page draws: places of differences in percent, and charts. Places and shapes only, no number. Our choice."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sigma_core.charts import Axis, Line, Mark, Point, chart
from sigma_core.evaluation.report import MAIN_METRIC, verdict
from sigma_core.evaluation.requests import SIGMA


def forest(task: Mapping[str, Any]) -> dict[str, Any]:
    """SIGMA minus each opponent, strongest first: places of the points and their 95 % intervals in percent of a track whose middle is 0.

    Each has the `verdict` that decides its colour: that of the table.
    """
    mine = task["models"][SIGMA][MAIN_METRIC]
    rows = []
    recall = {name: task["models"][name][MAIN_METRIC] for name in task["intervals"]}
    for name in sorted(recall, key=lambda name: -(recall[name] or 0.0)):  # as the bars beside it
        interval, other = task["intervals"][name][MAIN_METRIC], recall[name]
        if interval is not None and other is not None and mine is not None:
            rows.append((name, mine - other, interval[0], interval[1]))
    reach = max((abs(bound) for _, _, low, high in rows for bound in (low, high)), default=0.0) or 1.0

    def x(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    return {
        "reach": reach,
        "rows": [
            {"name": name, "x": x(value), "low": x(low), "high": x(high), "span": round(x(high) - x(low), 2), "value": value,
             "from": low, "to": high, "verdict": verdict(task, name)}
            for name, value, low, high in rows
        ],
    }  # fmt: skip


def variety(task: Mapping[str, Any] | None, metrics: Sequence[str]) -> dict[str, Any] | None:
    """Recall against measures of variety, a mark a model: filled where no other model beats it on both.

    Returns:
        `charts`: an `<svg>` a measure that any model has; `models`: their legend by recall, highest first: `name`, `key` (the
        mark alone), `recall`, and `values` (number, whether filled), a chart each. None where nothing can be drawn.
    """
    if task is None:
        return None
    recall = {
        name: found[MAIN_METRIC] for name, found in task["models"].items() if found[MAIN_METRIC] is not None
    }
    shown = [m for m in metrics if any(task["models"][name].get(m) is not None for name in recall)]
    if not shown:
        return None
    names = sorted(recall, key=lambda name: (name != SIGMA, name))  # SIGMA has the first mark and colour
    number = {name: i for i, name in enumerate(names)}
    cells: dict[str, list[tuple[float | None, bool]]] = {name: [] for name in names}
    charts = []
    for metric in shown:
        points = {n: (x, recall[n]) for n in names if (x := task["models"][n].get(metric)) is not None}
        best = {name for name, point in points.items() if not _is_beaten(point, points.values())}
        for name in names:
            cells[name].append((task["models"][name].get(metric), name in best))
        charts.append(
            chart(
                [Line("", sorted(points[name] for name in best), guide=True)],
                Axis(metric, from_zero=False),
                Axis(MAIN_METRIC, from_zero=False),
                title=f"{MAIN_METRIC} against {metric}",
                marks=[Mark(n, points[n], number[n], n in best) for n in reversed(names) if n in points],
                width=330,
                height=300,
            )
        )
    return {
        "metrics": shown,
        "charts": charts,
        "models": [
            {"name": name, "key": Mark(name, (0.0, 0.0), number[name]).key(), "recall": recall[name], "values": cells[name]}
            for name in sorted(names, key=lambda name: -recall[name])
        ],
    }  # fmt: skip


def _is_beaten(point: Point, points: Iterable[Point]) -> bool:
    return any(p[0] >= point[0] and p[1] >= point[1] and p != point for p in points)


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """The curve of bins with `predicted` and `observed`, and the diagonal; axes of square roots, as most probabilities are small."""
    points = [(row["predicted"], row["observed"]) for row in bins]
    most = max((max(point) for point in points), default=0.0)
    return chart(
        [Line("", [(0.0, 0.0), (most, most)], guide=True), Line("", points)],
        Axis("predicted probability (square-root axes)", "root"),
        Axis("observed share", "root"),
        title="reliability curve",
        width=430,
    )
