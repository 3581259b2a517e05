"""Where points, lines and labels of the report's inline plots stand, in SVG units. Computes places from numbers, no number. Our choice."""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sigma_core.evaluation.report import MAIN_METRIC
from sigma_core.evaluation.requests import SIGMA

ROW_HEIGHT: Final = 22
WIDTH: Final = 470  # of a forest
LABELS: Final = 165  # of it, for names
LINE: Final = 15  # of text: labels keep that distance
TICKS: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Square(NamedTuple):
    """The square that a plot is drawn in: its left and upper edge, and its side."""

    left: int
    top: int
    side: int

    @property
    def right(self) -> int:
        """Its right edge."""
        return self.left + self.side

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.top + self.side


FRONTIER: Final = Square(12, 24, 180)
CURVE: Final = Square(44, 24, 270)


def forest(task: Mapping[str, Any]) -> dict[str, Any]:
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
        "labels": LABELS,
        "height": ROW_HEIGHT * len(rows) + 24,
        "zero": x(0.0),
        "reach": reach,
        "rows": [
            {"name": name, "y": ROW_HEIGHT * i + 14, "x": x(value), "low": x(low), "high": x(high), "value": value,
             "from": low, "to": high, "side": "above" if low > 0 else "below" if high < 0 else "even"}
            for i, (name, value, low, high) in enumerate(rows)
        ],
    }  # fmt: skip


def frontier(task: Mapping[str, Any] | None, metric: str) -> dict[str, Any] | None:
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
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    top = max(p[2] for p in points) or 1.0
    span, box = (high - low) or 1.0, FRONTIER

    def beaten(point: tuple[str, float, float]) -> bool:
        return any(p[1] >= point[1] and p[2] >= point[2] and p[1:] != point[1:] for p in points)

    drawn: list[dict[str, Any]] = [
        {"name": p[0], "x": round(box.left + 8 + (box.side - 16) * (p[1] - low) / span, 1),
         "y": round(box.bottom - (box.side - 10) * p[2] / top, 1), "value": p[1], "recall": p[2], "best": not beaten(p)}
        for p in points
    ]  # fmt: skip
    _place_labels(drawn)
    drawn.sort(key=lambda point: point["name"] == SIGMA)  # drawn last, and so on top
    best = sorted((p for p in drawn if p["best"]), key=lambda p: (p["x"], p["y"]))
    return {
        "metric": metric,
        "low": low,
        "high": high,
        "top": top,
        "points": drawn,
        "line": " ".join(f"{p['x']},{p['y']}" for p in best),
    }


def _place_labels(points: list[dict[str, Any]]) -> None:
    """Give every point the height `label` of its name in the column right of the square, in order and apart."""
    least = FRONTIER.top + 4.0
    for point in sorted(points, key=lambda p: (p["y"], -p["x"])):
        point["label"] = max(point["y"], least)
        least = point["label"] + LINE
    over = max(0.0, least - LINE - FRONTIER.bottom)
    for point in points:
        point["label"] = round(point["label"] - over, 1)


def reliability_plot(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """The curve of `calibration["bins"]` on two equal axes that grow with the square root: most probabilities are small."""
    bins = calibration["bins"]
    top = max(max(row["predicted"], row["observed"]) for row in bins) or 1.0

    def reach(value: float) -> float:
        return CURVE.side * math.sqrt(max(value, 0.0) / top)

    points = [
        {**row, "x": round(CURVE.left + reach(row["predicted"]), 1),
         "y": round(CURVE.bottom - reach(row["observed"]), 1)}
        for row in bins
    ]  # fmt: skip
    return {
        "points": points,
        "line": " ".join(f"{p['x']},{p['y']}" for p in points),
        "ticks": [{"value": tick, "at": round(reach(tick), 1)} for tick in TICKS if tick <= top],
    }
