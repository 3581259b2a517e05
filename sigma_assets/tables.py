"""The tables a verb prints at its end, on the terminal, with rich. Formatting only."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sigma_assets.planner import Step
from sigma_assets.world import World

if TYPE_CHECKING:
    from sigma_assets.catalog_update import CatalogUpdate
    from sigma_assets.runner import Done

COMMON: Final = (
    "popularity",
    "personal_frequency",
    "personal_decayed",
    "item_knn",
)  # opponents every task has
WIDE: Final = 160  # columns that the whole table of a report takes


def print_steps(world: World, done: Sequence["Done"], stream: TextIO) -> None:
    """One row for each asset and state: partitions, seconds, rows or size of all of them, made or fresh."""
    table = _table("asset", "partition", "seconds", "rows or size", "")
    for (asset, is_fresh), group in groupby(done, key=lambda one: (one.step.asset, one.is_fresh)):
        ones = list(group)
        keys = [one.step.partition for one in ones]
        where = keys[0] if len(keys) == 1 else f"{keys[0]} .. {keys[-1]} ({len(keys)})"
        seconds = "" if is_fresh else f"{sum(one.seconds for one in ones):.1f}"
        size = size_of(world, [one.step for one in ones])
        table.add_row(asset, where, seconds, size, "fresh" if is_fresh else "made")
    made = [one for one in done if not one.is_fresh]
    console = _console(stream)
    console.print(table)
    console.print(f"{len(made)} of {len(done)} partitions made, in {sum(one.seconds for one in made):.0f} s")


def print_update(update: "CatalogUpdate", stream: TextIO) -> None:
    """What a catalog update changed: a row a kind of change, with examples."""
    console = _console(stream)
    if update.diff is None:
        console.print("nothing to compare with: neither the day nor the one before had a catalog")
        return
    table = _table("change", "items", "examples")
    for kind, ids in update.diff.items.items():
        table.add_row(
            kind, f"{len(ids):,}", Text("; ".join(update.diff.examples[kind][:2]))
        )  # no markup: [new] is part of a name
    table.add_row("unchanged", f"{update.diff.num_same:,}", "")
    console.print(table)
    console.print(f"{update.texts_encoded:,} texts encoded; semantic IDs of items that were there stay")


def size_of(world: World, steps: Sequence[Step]) -> str:
    """Rows, items or examples of the artifacts together, else the size of their files."""
    manifests = [world.manifest(step.asset, step.partition) for step in steps]
    for unit in ("rows", "items", "examples"):
        counts = [manifest["summary"].get(unit) for manifest in manifests if manifest]
        if counts and all(isinstance(count, int) for count in counts):
            return f"{sum(counts):,} {unit}"
    folders = [world.store.path(step.asset, step.partition) for step in steps]
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"


def print_report(report: dict[str, Any], stream: TextIO) -> None:
    """One row a task: recall@20 of SIGMA and the four common opponents, the strongest one, the lift of the instruction.

    A terminal too narrow for all of it has neither the ceiling nor the common opponents, and says so.
    """
    console = _console(stream)
    is_wide = console.width >= WIDE
    common = [name.replace("_", " ") for name in COMMON]
    more = ["ceiling", "sigma", *common] if is_wide else ["sigma"]
    table = _table("task", "targets", *more, "best opponent", "lift seen/unseen")
    for name, task in report["tasks"].items():
        recalls = {model: (scores or {}).get("recall@20") for model, scores in task["models"].items()}
        others = {m: r for m, r in recalls.items() if r is not None and m in task["intervals"]}
        best = max(others, key=lambda model: (others[model], model), default=None)
        lift = task["instruction_lift"]
        table.add_row(
            name + ((" (underpowered)" if is_wide else "*") if task["underpowered"] else ""),
            f"{task['num_targets'] or 0:,}",
            *([_figure(task["ceiling@20"])] if is_wide else []),
            _figure(recalls.get("sigma")),
            *([_figure(recalls.get(model)) for model in COMMON] if is_wide else []),
            f"{best} {_figure(others[best])}" if best else "-",
            "-" if lift is None else f"{_figure(lift['seen']['value'])}/{_figure(lift['unseen']['value'])}",
        )
    console.print(table)
    if not is_wide:
        console.print(f"* too few targets; {WIDE} columns show the ceiling and {', '.join(common)} too")
    catalog = report["catalog"]
    console.print(
        f"recall@20 over the {catalog['items']:,} items of the day's catalog; {catalog['targets']:,} targets in it, "
        f"{catalog['targets_outside']:,} outside; as of {report['as_of']}, {report['horizon_days']} days ahead"
    )
    if (details := report.get("details")) and details.get("households_sampled"):
        console.print(f"a hash sample of {details['households']:,} households; all of them: sigma evaluate")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        is_text = name in {"asset", "partition", "task", "best opponent", "examples", ""}
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")  # nothing is cut off
    return table


def _console(stream: TextIO) -> Console:
    return Console(file=stream, width=None if stream.isatty() else WIDE, highlight=False)
