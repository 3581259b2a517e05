"""What a verb's page shows before everything else: its main tables and drawings, read out of the record.

A function a verb; `page.py` renders what it returns. It rearranges numbers of the record and computes none but shares of a
drawing. Verbs without a function have plain tables only. Our choice.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sigma_core.benchmarks.arms import ARMS
from sigma_core.charts import Axis, Line, chart
from sigma_core.evaluation.report import side
from sigma_core.evaluation.report_drawings import reliability_chart
from sigma_core.instruction.tasks import TASKS

MAIN: Final = "recall@20"
SIGMA: Final = "sigma"
_ARM_TONES: Final = {"above": "bad", "below": "good"}  # of what an arm is compared with, minus the arm


class Cell(NamedTuple):
    """A value with a small line below it, and its class: good, bad, best, text or none."""

    text: str
    below: str = ""
    tone: str = ""


class Section(NamedTuple):
    """A heading with a note and one of: a grid of cells, rows as of a record's table, an SVG, a picture as data URI."""

    title: str
    note: str = ""
    header: Sequence[str] = ()
    grid: Sequence[Sequence[Cell]] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    svg: str = ""
    picture: str = ""
    folded: bool = False


def sections_of(record: Mapping[str, Any]) -> list[Section]:
    """The sections of the record's verb; none for a verb without a function, or a record that lacks what it shows."""
    make = _VERBS.get(record.get("benchmark", {}).get("verb", ""))
    return make(record) if make else []


def data_uri(png: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


# ---------------------------------------------------------------------------------------- ablation
def _ablation(record: Mapping[str, Any]) -> list[Section]:
    from sigma_core.benchmarks.ablation_plots import difference_png, frontier_png

    facts = _in_order(record["tasks"])
    tasks = list(facts)
    heads = [_task_head(task, found) for task, found in facts.items()]
    best = {task: _best(record["arms"], task) for task in tasks}
    toned = {task: {} if found["underpowered"] else _ARM_TONES for task, found in facts.items()}
    differences = _in_order(record["differences"], ARMS)
    arms = [
        [
            Cell(name, record["titles"][name]),
            *(_value(by_task.get(task), "best" if name in best[task] else "") for task in tasks),
        ]
        for name, by_task in _in_order(record["arms"], ARMS).items()
    ]
    worse = [
        [
            Cell(name, f"against {record['compared_with'][name]}"),
            *(_signed(by_task.get(task, {}).get(MAIN), toned[task], corrected=False) for task in tasks),
        ]
        for name, by_task in differences.items()
    ]
    ratios = [
        [
            Cell(f"sigma / {name}"),
            Cell(f"{found['paper']:.2f}"),
            *(Cell(f"{found['ours'][task]:.2f}" if task in found["ours"] else "-") for task in tasks),
        ]
        for name, found in _in_order(record["ratios"], ARMS).items()
    ]
    out = [
        Section(
            f"{MAIN} by arm and task",
            "Mean over seeds, below it the 95 % interval over resampled households. Bold: the highest of the task, or all that have "
            "it. "
            "A task with * has too few targets or households to call a winner.",
            ("arm", *heads),
            arms,
        )
    ]
    if worse:
        out += [
            Section(
                f"{MAIN}: what each arm is compared with, minus the arm",
                "Red: the arm is worse (interval above 0), green: it is better, uncoloured: the interval holds 0, or too few "
                "targets (*). Colors are not corrected for the number of arms and tasks; the record's p_holm is.",
                ("arm", *heads),
                worse,
            ),
            Section("The same, drawn", picture=data_uri(difference_png(facts, differences))),
        ]
    if record["frontier"]:
        out.append(
            Section(
                "Accuracy and diversity",
                "SIGMA's lists at several temperatures (the numbers), with APF and with one constant sigma. * too few targets.",
                picture=data_uri(frontier_png(record)),
            )
        )
    if ratios:
        note = f"SIGMA over the arm. The paper's is HR@20 of one task on its private data, ours {MAIN}."
        out.append(Section("Ratios beside the paper's", note, ("", "paper", *heads), ratios))
    trained = [
        {"arm": name, **run} for name, runs in record["training"].items() for run in runs if "steps" in run
    ]
    out.append(Section("Training of each arm", rows=trained))
    return out


def _best(models: Mapping[str, Any], task: str) -> set[str]:
    """The names with the highest mean of the task."""
    means = {
        name: by_task[task][MAIN]["mean"]
        for name, by_task in models.items()
        if task in by_task and by_task[task][MAIN]["mean"] is not None
    }
    return {name for name, mean in means.items() if mean == max(means.values())}


# ---------------------------------------------------------------------------------------- backtest
def _backtest(record: Mapping[str, Any]) -> list[Section]:
    from sigma_core.benchmarks.ablation_plots import difference_png

    pooled = record["pooled"]
    names = [role for role in ("judge", "choose", "all") if role in pooled]
    if len(names) == 2:  # all dates have one role: they are shown once
        names = ["all"]
    out = [
        Section(
            f"SIGMA against the strongest opponent of each task: {_of_dates(role, record)}",
            f"{MAIN}; difference: SIGMA minus the opponent with the highest value, 95 % interval over resampled households "
            "(a household's days together), p Holm-corrected. * too few targets to call a winner.",
            rows=_against_strongest(_in_order(pooled[role]["tasks"])),
        )
        for role in names
    ]
    shown = _in_order(pooled["all"]["tasks"])
    tasks = {task: found for task, found in shown.items() if found["strongest"]}
    by_date = {day: _strongest_differences(found) for day, found in record["dates"].items()}
    if len(by_date) > 1:
        by_date["pooled"] = _strongest_differences(pooled["all"]["tasks"])
    label = f"{MAIN}: SIGMA minus the day's strongest opponent (green: better, red: worse, corrected p < .05; hollow: neither, or too few targets, *)"
    picture = data_uri(difference_png(tasks, by_date, label, good_is_up=True, corrected=True))
    out.append(Section("The difference by date", picture=picture))
    heads = [_task_head(task, found) for task, found in shown.items()]
    rankers = _rankers(shown)
    targets = [Cell("targets"), *(Cell(f"{found['targets']:,}") for found in shown.values())]
    out += [
        Section(
            f"{MAIN} of every ranker",
            "All dates pooled; below each value its 95 % interval. Bold: the strongest opponent of the task. A ranker in "
            "brackets knows what no request says; it is shown, not compared with.",
            ("ranker", *heads),
            [
                targets,
                *([Cell(name), *(_ranker_cell(found, name) for found in shown.values())] for name in rankers),
            ],
        ),
        Section(
            f"{MAIN}: SIGMA minus every opponent",
            "All dates pooled. Green: SIGMA is better (interval above 0 and corrected p < .05), red: worse, uncoloured: neither, "
            "or too few targets (*).",
            ("opponent", *heads),
            [
                [
                    Cell(name),
                    *(
                        _signed(found["differences"].get(name, {}).get(MAIN), _tones(found), corrected=True)
                        for found in shown.values()
                    ),
                ]
                for name in rankers
                if any(name in found["differences"] for found in shown.values())
            ],
        ),
    ]
    if len(record["dates"]) > 1:
        out += [
            Section(f"{day} ({record['roles'][day]})", rows=_against_strongest(_in_order(found)), folded=True)
            for day, found in record["dates"].items()
        ]
    return out


def _of_dates(role: str, record: Mapping[str, Any]) -> str:
    said = {"judge": "dates that judge", "choose": "dates that settings were chosen on", "all": "all dates"}
    return f"{said[role]} ({', '.join(record['pooled'][role]['dates'])})"


def _against_strongest(tasks: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for task, found in tasks.items():
        if best := found["strongest"]:
            difference = found["differences"][best][MAIN]
            rows.append(
                {
                    "task": task + ("*" if found["underpowered"] else ""),
                    "targets": found["targets"],
                    SIGMA: found["models"][SIGMA][MAIN]["mean"],
                    "strongest opponent": best,
                    "its recall": found["models"][best][MAIN]["mean"],
                    "p": difference["p"],
                    "verdict": _verdict(found, difference),
                    "difference": difference["mean"],
                    "low": difference["low"],
                    "high": difference["high"],
                }
            )
    return rows


def _strongest_differences(tasks: Mapping[str, Any]) -> dict[str, Any]:
    return {
        task: found["differences"][found["strongest"]] | {"underpowered": found["underpowered"]}
        for task, found in tasks.items()
        if found["strongest"]
    }


def _verdict(found: Mapping[str, Any], difference: Mapping[str, Any]) -> str:
    if found["underpowered"] or difference["low"] is None:
        return "underpowered"
    return side(difference["low"], difference["high"], difference["p"])


def _tones(task: Mapping[str, Any]) -> Mapping[str, str]:
    return {} if task["underpowered"] else {"above": "good", "below": "bad"}


def _rankers(tasks: Mapping[str, Any]) -> list[str]:
    """SIGMA first, the others by how many tasks have them."""
    count: dict[str, int] = {}
    for found in tasks.values():
        for name in found["models"]:
            count[name] = count.get(name, 0) + 1
    return sorted(count, key=lambda name: (name != SIGMA, -count[name], name))


def _ranker_cell(found: Mapping[str, Any], name: str) -> Cell:
    cell = _value(found["models"].get(name), "best" if name == found["strongest"] else "")
    is_oracle = name in found["models"] and name != SIGMA and name not in found["differences"]
    return cell._replace(text=f"({cell.text})") if is_oracle else cell


# ------------------------------------------------------------------------------ diagnosis, scaling
def _diagnosis(record: Mapping[str, Any]) -> list[Section]:
    bins = record["reliability"]
    if not bins:
        return []
    note = (
        "Mean probability that lists gave to a bin of items, and how often these were the purchase. On the dashed line both "
        "agree; below it the model is too sure. Expected calibration error (ECE), a listed item: "
        f"{record['expected_calibration_error']:.4f}. Both axes grow with the square root, so that small ones can be seen."
    )
    return [Section("Reliability of the probabilities", note, svg=reliability_chart(bins))]


def _scaling(record: Mapping[str, Any]) -> list[Section]:
    by_stage: dict[str, list[tuple[float, float]]] = {}
    for row in record["rows"]:
        by_stage.setdefault(row["stage"], []).append((row["scale"], row["seconds"]))
    scales = sorted({row["scale"] for row in record["rows"]})
    order = sorted(by_stage, key=lambda stage: -by_stage[stage][-1][1])
    lines = [Line(f"{stage}: {record['exponents'][stage]:.2f}", by_stage[stage]) for stage in order]
    seconds = [second for points in by_stage.values() for _, second in points if second > 0]
    if len(scales) > 1 and seconds:
        start = min(seconds)
        guide = [(scale, start * scale / scales[0]) for scale in (scales[0], scales[-1])]
        lines.append(Line("slope of 1 (linear)", guide, guide=True))
    out = [
        Section(
            "Seconds over size",
            "Users, items and events of the data, as multiples of the smallest; both axes logarithmic. Beside each stage its "
            "exponent: 1 is linear.",
            svg=chart(
                lines,
                Axis("size of the data", "log", ticks=tuple(map(float, scales))),
                Axis("seconds", "log"),
                title="seconds over size by stage",
                width=860,
            ),
        )
    ]
    if left := record.get("not_measured"):
        rows = [[Cell(stage), Cell(why, tone="text")] for stage, why in left.items()]
        out.append(Section("Not measured", "", ("stage", ""), rows))
    return out


# ------------------------------------------------------------------------------------------- cells
def _in_order(named: Mapping[str, Any], order: Mapping[str, Any] = TASKS) -> dict[str, Any]:
    """The same in that order, "task, confined" right after its task, whatever is not in it last; a JSON file has its own."""
    place = {name: number for number, name in enumerate(order)}
    return dict(sorted(named.items(), key=lambda pair: place.get(pair[0].split(",")[0], len(place))))


def _task_head(task: str, facts: Mapping[str, Any]) -> str:
    return task + ("*" if facts["underpowered"] else "")


def _value(metrics: Mapping[str, Any] | None, tone: str = "") -> Cell:
    found = (metrics or {}).get(MAIN)
    if not found or found["mean"] is None:
        return Cell("-")
    return Cell(f"{found['mean']:.4f}", _span(found, ".3f"), tone)


def _signed(found: Mapping[str, Any] | None, tones: Mapping[str, str], *, corrected: bool) -> Cell:
    """A difference and its interval; toned by the side of zero it lies on, where `corrected` only if p is under .05 too."""
    if not found or found["mean"] is None:
        return Cell("-")
    known = found["low"] is not None
    lies = side(found["low"], found["high"], found["p"] if corrected else 0.0) if known else ""
    return Cell(f"{found['mean']:+.4f}", _span(found, "+.3f"), tones.get(lies, ""))


def _span(found: Mapping[str, Any], form: str) -> str:
    return "" if found["low"] is None else f"{found['low']:{form}} to {found['high']:{form}}"


_VERBS: Final[Mapping[str, Callable[[Mapping[str, Any]], list[Section]]]] = {
    "ablation": _ablation,
    "backtest": _backtest,
    "diagnosis": _diagnosis,
    "scaling": _scaling,
}
