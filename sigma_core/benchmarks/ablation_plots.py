"""The plots of an ablation or backtest as PNG: differences by task, and the frontier of accuracy and diversity.

matplotlib is imported when a plot is made. Holds no numbers of its own and writes no file.
"""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sigma_core.evaluation.report import side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAIN: Final = "recall@20"
DIFFERENCE_LABEL: Final = f"{MAIN}: what the arm is compared with, minus the arm (red: the arm is worse, green: better; hollow: neither, or too few targets, *)"
BAD, GOOD, NEITHER = "#c0392b", "#1e8449", "#5f6c7a"
_KINDS: Final = {
    "apf": ("#c0392b", "o", 5),
    "constant": ("#2471a3", "s", -10),
}  # colour, mark, where its numbers stand
_DPI: Final = 130
_COLUMNS: Final = 3  # panels beside each other: what fits a page


def difference_png(
    tasks: Mapping[str, Mapping[str, Any]],
    differences: Mapping[str, Any],
    label: str = DIFFERENCE_LABEL,
    *,
    good_is_up: bool = False,
    corrected: bool = False,
) -> bytes:
    """PNG: a panel a task, a line a name of `differences` {name: {task: {metric: ...}}}: its recall@20 and 95 % interval.

    An interval above 0 is green where `good_is_up`, else red; one below 0 the other way round. Where `corrected`, only if the
    difference's `p` is under .05 too, as the verdicts of a report. What has too few targets, by its own `underpowered` or else
    by that of its task in `tasks`, is grey like what is even.
    """
    above, below = (GOOD, BAD) if good_is_up else (BAD, GOOD)
    colors = {"above": above, "below": below, "even": NEITHER}
    names = list(differences)
    figure, panels = _panels(len(tasks), 3.2, 0.9 + 0.26 * max(len(names), 1))
    for axes, task in zip(panels, tasks, strict=False):
        for place, name in enumerate(names):
            metrics = differences[name].get(task, {})
            found = metrics.get(MAIN)
            if found and found["mean"] is not None:
                lies = side(found["low"], found["high"], found["p"] if corrected else 0.0)
                few = metrics.get("underpowered", tasks[task]["underpowered"])
                color = NEITHER if few else colors[lies]
                face = "white" if color == NEITHER else color
                axes.plot([found["low"], found["high"]], [place, place], color=color, linewidth=1.4)
                axes.plot([found["mean"]], [place], "o", color=color, markerfacecolor=face, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(_title(task, tasks[task]), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.locator_params(axis="x", nbins=5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names)
    for place, axes in enumerate(panels):
        axes.tick_params(labelleft=place % _COLUMNS == 0)
    figure.supxlabel(label, fontsize=9)
    return _png(figure)


def frontier_png(values: Mapping[str, Any]) -> bytes:
    """PNG: a panel a task, recall@20 over diversity@20, APF and a constant sigma, a point a temperature."""
    frontier = values["frontier"]
    figure, panels = _panels(len(frontier), 3.2, 2.8)
    for axes, (task, points) in zip(panels, frontier.items(), strict=False):
        for kind, (color, mark, above) in _KINDS.items():
            mine = [p for p in points if p["kind"] == kind]
            x, y = [p["diversity@20"] for p in mine], [p[MAIN] for p in mine]
            face = color if kind == "apf" else "none"  # one under the other can still be seen
            axes.plot(
                x, y, mark + "-", color=color, markerfacecolor=face, markersize=4.5, linewidth=1, label=kind
            )
            for p, (px, py) in zip(mine, zip(x, y, strict=True), strict=True):
                axes.annotate(
                    f"{p['temperature']:g}",
                    (px, py),
                    (0, above),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6,
                    color=color,
                )
        if len({p[MAIN] for p in points}) == 1:  # a flat line: no recall is below 0
            axes.set_ylim(0, 2 * points[0][MAIN] or 0.01)
        axes.margins(0.12, 0.18)
        axes.set_title(_title(task, values["tasks"].get(task)), fontsize=9)
        axes.set_xlabel("diversity@20", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.locator_params(axis="x", nbins=5)
    if frontier:
        panels[0].set_ylabel(MAIN, fontsize=8)
        panels[0].legend(frameon=False, fontsize=8)
    return _png(figure)


def _title(task: str, facts: Mapping[str, Any] | None) -> str:
    return task.replace("_", " ") + ("*" if facts and facts["underpowered"] else "")


def _panels(number: int, width: float, height: float) -> "tuple[Figure, list[Any]]":
    """A figure of so many panels (one at least) in rows of `_COLUMNS`, each of that size in inches."""
    columns = min(max(number, 1), _COLUMNS)
    rows = -(-max(number, 1) // columns)
    figure = _figure(width * columns + 1, height * rows + 0.4)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[max(number, 1) :]:
        axes.remove()
    return figure, panels[: max(number, 1)]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(linewidth=0.4, alpha=0.6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
