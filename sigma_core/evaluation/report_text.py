"""The report as Markdown: first what was found, then every number. Reads the JSON value of `report.json`, adds nothing."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sigma_core.evaluation.metrics import METRICS
from sigma_core.evaluation.report import LIFT_PLOT, MAIN_METRIC, RECALL_PLOT, strongest, verdict
from sigma_core.evaluation.requests import COMMON, SIGMA

_MISSING: Final = "-"


def report_markdown(values: dict[str, Any]) -> str:
    """Headline, verdicts, instruction lift, rows, then one table a task."""
    defined = {name: task for name, task in values["tasks"].items() if task["num_targets"] is not None}
    lines = [*_headline(values), "", "## SIGMA and its strongest opponent", "", *_verdicts(defined)]
    undefined = [name for name in values["tasks"] if name not in defined]
    if undefined:
        lines += ["", f"No targets on this day, so undefined: {', '.join(undefined)}."]
    lines += [
        "",
        f"![recall]({RECALL_PLOT})",
        "",
        "## Does the instruction do anything?",
        "",
        *_lift(defined),
    ]
    lines += [
        "",
        f"![lift]({LIFT_PLOT})",
        "",
        "## Repeats, new purchases, cold items",
        "",
        *_rows(values, defined),
    ]
    filtered = values.get("filtered", {})
    if filtered:
        lines += ["", "## Everyone confined to what the task is about", "", *_filtered(filtered)]
    for name, task in defined.items():
        lines += ["", f"## {name}", "", *_models(task)]
    for name, task in filtered.items():
        lines += ["", f"## {name}, confined", "", *_models(task)]
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """A share with four decimals, without the leading zero; "-" for none."""
    if value is None:
        return _MISSING
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4f}"


def signed(value: float | None) -> str:
    """The same with its sign."""
    return _MISSING if value is None else ("-" if value < 0 else "+") + number(abs(value))


def probability(p: float) -> str:
    """A p-value; very small ones as a bound."""
    return "<.0001" if p < 1e-4 else number(p)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def _headline(values: dict[str, Any]) -> Iterator[str]:
    catalog, details = values["catalog"], values["details"]
    sampled = " (a sample, chosen by hash)" if details["households_sampled"] else ""
    yield f"# Evaluation of {values['as_of']}: the next {values['horizon_days']} days"
    yield ""
    yield (
        f"{details['households']:,} households{sampled}, full ranking over {catalog['items']:,} items. "
        f"{catalog['targets'] + catalog['targets_outside']:,} distinct purchases in the window, "
        f"{catalog['targets']:,} of them in the catalog of the day."
    )
    general = values["tasks"]["just_for_you"]["models"].get(SIGMA, {}).get(MAIN_METRIC)
    if general is not None and not details["households_sampled"]:
        share = catalog["targets"] / max(catalog["targets"] + catalog["targets_outside"], 1)
        yield ""
        yield (
            f"Counting purchases outside the catalog as misses, {SIGMA}'s just_for_you {MAIN_METRIC} is "
            f"{number(general * share)} instead of {number(general)}."
        )


def _verdicts(defined: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield (
        f"{MAIN_METRIC} over all targets. Difference with 95 % interval, households resampled; p two-sided, "
        "Holm-corrected over all tasks and opponents."
    )
    yield ""
    rows = []
    for name, task in defined.items():
        best = strongest(task)
        if best is None:
            continue
        models = task["models"]
        low, high = task["intervals"][best][MAIN_METRIC]
        difference = models[SIGMA][MAIN_METRIC] - models[best][MAIN_METRIC]
        rows.append(
            [
                name,
                f"{task['num_targets']:,}",
                f"{task['num_households']:,}",
                number(task["ceiling@20"]),
                number(models[SIGMA][MAIN_METRIC]),
                f"{number(models[best][MAIN_METRIC])} {best}",
                f"{signed(difference)} [{signed(low)}, {signed(high)}]",
                probability(task["p_values"][best][MAIN_METRIC]),
                verdict(task, best),
            ]
        )
    header = (
        "task",
        "targets",
        "households",
        "ceiling",
        SIGMA,
        "strongest opponent",
        "difference",
        "p",
        "verdict",
    )
    yield from table(header, rows)


def _filtered(filtered: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield (
        "longtail: every list holds items of the long tail alone; category: of the named category, one request a household, "
        "chosen by hash; cold: launched lately, judged on the just-for-you targets that were. Households of the lift."
    )
    yield ""
    yield from list(_verdicts(filtered))[2:]


def _lift(defined: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield (
        f"{MAIN_METRIC} with the right wording minus that with the just-for-you wording, on the same targets and without "
        "any history filter; unseen = a wording never trained on."
    )
    yield ""
    rows = []
    for name, task in defined.items():
        lift = task["instruction_lift"]
        if lift is None or lift["seen"]["value"] is None:
            continue
        seen, unseen = lift["seen"]["value"], lift["unseen"]["value"]
        kept = f"{unseen / seen:.0%}" if seen > 0 else _MISSING
        rows.append([name, *(_with_interval(lift[wording]) for wording in ("seen", "unseen")), kept])
    yield from table(("task", "seen wording", "unseen wording", "kept"), rows)


def _with_interval(lift: dict[str, float]) -> str:
    return f"{signed(lift['value'])} [{signed(lift['low'])}, {signed(lift['high'])}]"


def _rows(values: dict[str, Any], defined: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield (
        f"{MAIN_METRIC} on parts of the targets: repeat = the household took the item before, new = it did not, "
        "cold = the item was launched lately, unseen_phrase = asked for by a phrase that SIGMA never trained on."
    )
    yield ""
    rows = []
    for name, task in defined.items():
        for row, models in task["rows"].items():
            cells = [
                number(models[model][MAIN_METRIC]) if model in models else _MISSING
                for model in (SIGMA, *COMMON)
            ]
            rows.append([f"{name}, {row}", f"{values['details']['row_targets'][name][row]:,}", *cells])
    yield from table(("targets of", "number", SIGMA, *COMMON), rows)


def _models(task: dict[str, Any]) -> Iterator[str]:
    note = " Underpowered: too few to call a winner." if task["underpowered"] else ""
    yield (
        f"{task['num_targets']:,} targets of {task['num_households']:,} households; no list of 20 can have more than "
        f"{number(task['ceiling@20'])} recall.{note}"
    )
    yield ""
    rows = [
        [name, *(number(metrics[metric]) for metric in METRICS)] for name, metrics in task["models"].items()
    ]
    yield from table(("model", *METRICS), rows)
