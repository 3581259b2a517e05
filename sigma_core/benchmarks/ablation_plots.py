"""The plots of an ablation: differences by arm and task, and the frontier of accuracy and diversity. matplotlib is lazy."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAIN: Final = "recall@20"
_COLORS: Final = {"apf": "#c0392b", "constant": "#2471a3"}
_DPI: Final = 110
_COLUMNS: Final = 3  # panels beside each other: what fits a page


def plot_differences(values: Mapping[str, Any], path: Path) -> None:
    """A panel a task: what each arm is compared with, minus the arm, at recall@20 with its 95 % interval."""
    tasks, arms = list(values["tasks"]), list(values["differences"])
    figure, panels = _panels(len(tasks), 3.2, 0.9 + 0.26 * max(len(arms), 1))
    for axes, task in zip(panels, tasks, strict=False):
        for place, arm in enumerate(arms):
            found = values["differences"][arm].get(task, {}).get(MAIN)
            if found and found["mean"] is not None:
                color = "#c0392b" if found["low"] > 0 else "#1e8449" if found["high"] < 0 else "#7f8c8d"
                axes.plot([found["low"], found["high"]], [place, place], color=color, linewidth=1.4)
                axes.plot([found["mean"]], [place], "o", color=color, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(task, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.locator_params(axis="x", nbins=5)
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_yticks(range(len(arms)), arms)
    for place, axes in enumerate(panels):
        axes.tick_params(labelleft=place % _COLUMNS == 0)
    figure.supxlabel(
        f"{MAIN}: what the arm is compared with, minus the arm (red: the arm is worse)", fontsize=9
    )
    _save(figure, path)


def plot_frontier(values: Mapping[str, Any], path: Path) -> None:
    """A panel a task: recall@20 over diversity@20, APF and a constant sigma, a point a temperature."""
    frontier = values["frontier"]
    figure, panels = _panels(len(frontier), 3.2, 2.8)
    for axes, (task, points) in zip(panels, frontier.items(), strict=False):
        for kind, color in _COLORS.items():
            mine = [p for p in points if p["kind"] == kind]
            x, y = [p["diversity@20"] for p in mine], [p[MAIN] for p in mine]
            axes.plot(x, y, "o-", color=color, markersize=3.5, linewidth=1, label=kind)
            for p in mine:
                axes.annotate(f"{p['temperature']:g}", (p["diversity@20"], p[MAIN]), fontsize=6)
        axes.set_title(task, fontsize=9)
        axes.set_xlabel("diversity@20", fontsize=8)
    if frontier:
        panels[0].set_ylabel(MAIN, fontsize=8)
        panels[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


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


def _save(figure: "Figure", path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(linewidth=0.4, alpha=0.6)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
