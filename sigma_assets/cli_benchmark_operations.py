"""Verbs of `sigma benchmark` about operating the pipeline: catalog-update, orchestration."""

from pathlib import Path
from typing import Annotated

import typer

from sigma_assets.cli_app import Root, prepare
from sigma_assets.cli_benchmark import Out, benchmark_app, publish

Repeats = Annotated[int, typer.Option(min=1, help="Measurements of each figure; the median counts.")]
Day = Annotated[str, typer.Option("--date", metavar="DATE", help="A materialized day of the root.")]


@benchmark_app.command("catalog-update")
def catalog_update(
    day: Day,
    root: Root = Path("var"),
    share: Annotated[float, typer.Option(help="New items, as a share of the day's catalog.")] = 0.01,
    repeats: Repeats = 3,
    rerun_refit: Annotated[
        bool,
        typer.Option("--rerun-refit", help="Time the full refit now instead of reading Dagster's records."),
    ] = False,
    out: Out = None,
) -> None:
    """A partial rerun after 1% new items, beside the full refit and beside its floor (encode new texts, write the index).

    Works on a copy of the root. `ratio`: the command line over the full refit (month's stages and the day's); `over_floor`: the
    update in process, without user_to_item_index, over its floor; `sids_changed`: of items that were there. Recall with aged
    codebooks (aged_30, aged_90) is not measured here: it needs three refits; the keys are null.
    """
    prepare(root, None, verbose=False)
    from sigma_assets.benchmarks.catalog_update import Sizes, run
    from sigma_core.benchmarks.record import text_table
    from sigma_core.config import parse_date

    record = run(root, parse_date(day), Sizes(share, repeats, 0, rerun_refit))
    shown = [(key, value) for key, value in record.items() if isinstance(value, int | float)]
    publish(out, record, text_table(("figure", "value"), shown))


@benchmark_app.command("orchestration")
def orchestration(day: Day, root: Root = Path("var"), repeats: Repeats = 3, out: Out = None) -> None:
    """Seconds around the models: a rerun without changes, Dagster around a step, contracts on a day and a year, loading.

    Works on a copy of the root.
    """
    prepare(root, None, verbose=False)
    from sigma_assets.benchmarks.orchestration import LIMITS, run
    from sigma_core.benchmarks.record import text_table
    from sigma_core.config import parse_date

    record = run(root, parse_date(day), repeats)
    shown = [(name, record[name], limit) for name, limit in LIMITS.items()]
    publish(out, record, text_table(("seconds", "measured", "at most"), shown))
