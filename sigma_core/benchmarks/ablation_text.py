"""An ablation as Markdown: first each arm against what it is compared with, then every number. Adds nothing to the JSON."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sigma_core.benchmarks.arms import SIGMA
from sigma_core.evaluation.report_text import number, probability, signed, table

MAIN: Final = "recall@20"
CALIBRATION: Final = "calibration_error@20"


def ablation_markdown(values: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The report; `plots` are file names of pictures by title."""
    settings, made = values["settings"], values.get("benchmark")
    command = f" Command: `{made['command']}`." if made else ""
    lines = [
        f"# Ablation of {', '.join(values['dates'])}",
        "",
        f"{settings['households']:,} households, seeds {values['seeds']}, {settings['steps']} steps for every arm "
        f"(a specialist: as many requests of its task as SIGMA met).{command}",
        f"All seeds share one grounding (seed {settings['grounding_seed']}): encoder, vectors and codebooks are made once an "
        "arm, so nothing here says how much they vary.",
        "",
        f"## {MAIN}: what each arm is compared with, minus the arm",
        "",
        "Mean over seeds, 95 % interval over resampled households. Above 0: the arm is worse. p is Holm-corrected over all "
        "arms and tasks of the table; the intervals are not.",
        "",
        *_differences(values, MAIN),
        "",
        f"## {MAIN} of every arm",
        "",
        *_means(values, MAIN),
        "",
        "## Ratios beside the paper's",
        "",
        "The paper's are HR@20 on its own private data, one task; ours are recall@20.",
        "",
        *_ratios(values),
        "",
        "## Calibration error, a list: reference minus arm",
        "",
        "An error is a sum of distances, which chance makes larger; intervals are corrected for that. "
        f"{_by_chance(values, CALIBRATION)}",
        "",
        *_differences(values, CALIBRATION),
    ]
    for title, file in plots.items():
        lines += ["", f"## {title}", "", f"![{title}]({file})"]
    if values["skipped"]:
        lines += ["", "## Left out", "", *(f"- {name}: {why}" for name, why in values["skipped"].items())]
    for task in values["tasks"]:
        lines += ["", f"## {task}", "", *_task(values, task)]
    return "\n".join(lines) + "\n"


def _cell(found: Mapping[str, float | None] | None, sign: bool = True) -> str:
    if found is None or found["mean"] is None:
        return "-"
    show = signed if sign else number
    if found["low"] is None:
        return show(found["mean"])
    p = found.get("p_holm")
    said = "" if p is None else f", p {probability(p)}"
    return f"{show(found['mean'])} [{show(found['low'])}, {show(found['high'])}]{said}"


def _by_chance(values: Mapping[str, Any], metric: str) -> str:
    """How many intervals of differences there are, and how many would exclude 0 with no difference anywhere."""
    cells = [task.get(metric, {}) for by_task in values["differences"].values() for task in by_task.values()]
    known = sum(cell.get("low") is not None for cell in cells)
    return (
        f"Nothing here is corrected for their number: of the {known} intervals of this table about {known * 0.05:.0f} would "
        "exclude 0 by chance."
    )


def _differences(values: Mapping[str, Any], metric: str) -> Iterator[str]:
    tasks = list(values["tasks"])
    rows = [
        [name, values["compared_with"][name], *(_cell(by_task.get(t, {}).get(metric)) for t in tasks)]
        for name, by_task in values["differences"].items()
    ]
    yield from table(("arm", "compared with", *tasks), rows)


def _means(values: Mapping[str, Any], metric: str) -> Iterator[str]:
    tasks = list(values["tasks"])
    rows = [
        [
            f"{name}: {values['titles'][name]}",
            *(_cell(by_task.get(t, {}).get(metric), sign=False) for t in tasks),
        ]
        for name, by_task in values["arms"].items()
    ]
    yield from table(("arm", *tasks), rows)


def _ratios(values: Mapping[str, Any]) -> Iterator[str]:
    tasks = list(values["tasks"])
    rows = [
        [
            f"{SIGMA} / {name}",
            f"{r['paper']:.2f}",
            *(f"{r['ours'][t]:.2f}" if t in r["ours"] else "-" for t in tasks),
        ]
        for name, r in values["ratios"].items()
    ]
    yield from table(("ratio", "paper", *tasks), rows)


def _task(values: Mapping[str, Any], task: str) -> Iterator[str]:
    facts = values["tasks"][task]
    few = " Underpowered: too few to call a winner." if facts["underpowered"] else ""
    yield f"{facts['targets']:,} targets of {facts['households']:,} households.{few}"
    yield ""
    metrics = list(values["arms"][SIGMA][task])
    rows = [
        [name, *(number(by_task[task][m]["mean"]) for m in metrics)]
        for name, by_task in values["arms"].items()
        if task in by_task
    ]
    yield from table(("arm", *metrics), rows)
    yield ""
    yield f"{MAIN} on repeats, new purchases and cold items:"
    yield ""
    parts = [
        [name, *(_cell(by_task[task][row], sign=False) for row in ("repeat", "new", "cold"))]
        for name, by_task in values["rows"].items()
        if task in by_task
    ]
    yield from table(("arm", "repeat", "new", "cold"), parts)
