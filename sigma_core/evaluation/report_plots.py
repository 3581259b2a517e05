"""The report's two plots. matplotlib is imported when one is drawn, on the Agg canvas: no display is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sigma_core.evaluation.report import MAIN_METRIC, WORDINGS
from sigma_core.evaluation.requests import SIGMA
from sigma_core.instruction.tasks import TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIGMA_COLOR: Final = "#c0392b"
_OPPONENT_COLORS: Final = {
    "popularity": "#7f8c8d",
    "personal_frequency": "#2471a3",
    "personal_decayed": "#154360",
    "item_knn": "#1e8449",
}
_OTHER_COLOR: Final = "#b9770e"  # opponents that not every task has
_ORACLE_COLOR: Final = "#8e5aa8"
_DPI: Final = 110


def plot_recall(values: dict[str, Any], path: Path) -> None:
    """Left: recall@20 of every model by task. Right: SIGMA minus each opponent with its 95 % interval.

    An opponent has the same height on both sides; one that not every task has is named, as its colour does not tell it.
    """
    found = values["tasks"]
    tasks = {name: found[name] for name in TASKS if name in found and found[name]["num_targets"] is not None}
    figure = _figure(11, 1.4 + 1.05 * max(len(tasks), 1))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, task in enumerate(tasks.values()):
        _draw_models(left, place, task)
        _draw_differences(right, place, task)
    for axes in (left, right):
        for border in range(1, len(tasks)):
            axes.axhline(border - 0.5, color="#dddddd", linewidth=0.7)
    left.set_yticks(range(len(tasks)), [_label(name, task) for name, task in tasks.items()])
    left.invert_yaxis()
    left.set_xlim(left=0)
    left.set_xlabel(f"{MAIN_METRIC} (red line: {SIGMA}; grey: the most a list of 20 can reach)")
    right.axvline(0, color="black", linewidth=0.8)
    right.set_xlabel(f"{SIGMA} minus opponent, 95 % interval over households")
    _legend(figure, left)
    figure.suptitle(f"{values['as_of']}, next {values['horizon_days']} days", x=0.02, ha="left")
    _save(figure, path)


def plot_lift(values: dict[str, Any], path: Path) -> None:
    """What the right wording adds to recall@20 over the just-for-you wording, by task: seen and unseen wordings."""
    found = {name: values["tasks"][name]["instruction_lift"] for name in TASKS if name in values["tasks"]}
    lifts = {
        name: lift for name, lift in found.items() if lift is not None and lift["seen"]["value"] is not None
    }
    figure = _figure(7, 1.4 + 0.5 * max(len(lifts), 1))
    axes = figure.subplots()
    for wording, color, shift in zip(WORDINGS, (SIGMA_COLOR, "#2471a3"), (-0.12, 0.12), strict=True):
        for place, lift in enumerate(lifts.values()):
            _whisker(
                axes,
                place + shift,
                lift[wording]["value"],
                (lift[wording]["low"], lift[wording]["high"]),
                color,
            )
        axes.plot([], [], "o", color=color, label=f"{wording} wording")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lifts)), [name.replace("_", " ") for name in lifts])
    axes.invert_yaxis()
    axes.set_xlabel(f"{MAIN_METRIC}: right wording minus just-for-you wording, 95 % interval")
    axes.legend(frameon=False)
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _label(name: str, task: dict[str, Any]) -> str:
    return f"{name.replace('_', ' ')}\n{task['num_targets']:,} targets" + (
        " (few)" if task["underpowered"] else ""
    )


def _color(name: str, task: dict[str, Any]) -> str:
    if name == SIGMA:
        return SIGMA_COLOR
    return _OPPONENT_COLORS.get(name, _OTHER_COLOR if name in task["intervals"] else _ORACLE_COLOR)


def _shifts(task: dict[str, Any]) -> dict[str, float]:
    """How far above or below the task's middle each opponent, and each oracle after them, is drawn."""
    names = [*task["intervals"], *(n for n in task["models"] if n != SIGMA and n not in task["intervals"])]
    return {name: 0.8 * ((i + 0.5) / len(names) - 0.5) for i, name in enumerate(names)}


def _draw_models(axes: "Axes", place: int, task: dict[str, Any]) -> None:
    band = [place - 0.42, place + 0.42]
    axes.plot([task["ceiling@20"]] * 2, band, color="#aaaaaa", linewidth=1.5)
    axes.plot([task["models"][SIGMA][MAIN_METRIC]] * 2, band, color=SIGMA_COLOR, linewidth=2)
    for name, shift in _shifts(task).items():
        recall, color = task["models"][name][MAIN_METRIC], _color(name, task)
        if recall is not None:
            axes.plot([recall], [place + shift], "o", color=color, markersize=4.5)
            if color in (_OTHER_COLOR, _ORACLE_COLOR):
                _name(axes, name, (recall, place + shift), color)


def _name(axes: "Axes", name: str, point: tuple[float, float], color: str) -> None:
    said = name.replace("_", " ")
    axes.annotate(said, point, (6, 0), textcoords="offset points", va="center", fontsize=6, color=color)


def _draw_differences(axes: "Axes", place: int, task: dict[str, Any]) -> None:
    shifts = _shifts(task)
    for name, metrics in task["intervals"].items():
        difference = task["models"][SIGMA][MAIN_METRIC] - task["models"][name][MAIN_METRIC]
        _whisker(axes, place + shifts[name], difference, metrics[MAIN_METRIC], _color(name, task))


def _whisker(axes: "Axes", place: float, value: float, interval: tuple[float, float], color: str) -> None:
    axes.plot(list(interval), [place, place], color=color, linewidth=1.3)
    axes.plot([value], [place], "o", markersize=3.5, color=color)


def _legend(figure: "Figure", axes: "Axes") -> None:
    colors = {
        SIGMA: SIGMA_COLOR,
        **_OPPONENT_COLORS,
        "opponent of some tasks, named": _OTHER_COLOR,
        "oracle": _ORACLE_COLOR,
    }
    for name, color in colors.items():
        axes.scatter([], [], color=color, label=name.replace("_", " "))
    figure.legend(loc="outside lower center", ncols=len(colors), frameon=False, fontsize=8)
