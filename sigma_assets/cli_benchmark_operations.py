"""Verbs of `sigma benchmark` about operating the pipeline: catalog-update, orchestration."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any

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
    aged: Annotated[
        bool,
        typer.Option(
            "--aged", help="Also train with codebooks 30 and 90 days older: hours; kept beside --out."
        ),
    ] = False,
    seeds: Annotated[str, typer.Option(help="With --aged: each model is trained once a seed.")] = "0,1,2",
    minutes: Annotated[
        float, typer.Option(min=0.01, help="With --aged: training time of one model here.")
    ] = 5.0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="With --aged: that number of steps itself, instead of timing a few."),
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="With --aged: households judged, by hash. [default: all]")
    ] = None,
    out: Out = None,
) -> None:
    """A partial rerun after 1% new items, beside the full refit and beside its floor (encode new texts, write the index).

    Works on a copy of the root. `ratio`: the command line over the full refit (month's stages and the day's); `over_floor`: the
    update in process, without user_to_item_index, over its floor; `sids_changed`: of items that were there. `aged_30` and
    `aged_90`, null without --aged: recall@20 with codebooks so many days older than the month's refit, against the refit's.
    """
    if aged and out is None:
        raise typer.BadParameter("--aged needs --out FILE.json: what was trained is kept beside it.")
    prepare(root, None, verbose=False)
    from sigma_assets.benchmarks.catalog_update import Sizes, run
    from sigma_core.benchmarks.record import text_table
    from sigma_core.config import parse_date

    record = run(root, parse_date(day), Sizes(share, repeats, 0, rerun_refit))
    shown: list[tuple[str, Any]] = [
        (key, value) for key, value in record.items() if isinstance(value, int | float)
    ]
    if aged and out is not None:
        record |= _aged(root, parse_date(day), out, seeds, minutes, steps, users)
        shown += [
            (f"{key} {task}, fresh minus aged", f"{gap['mean']} ({gap['low']} to {gap['high']})")
            for key in record["aged_settings"]["measured"]
            for task, gap in ((task, found["fresh_minus_aged"]) for task, found in record[key].items())
        ]
    publish(out, record, text_table(("figure", "value"), shown))


def _aged(
    root: Path, day: date, out: Path, seeds: str, minutes: float, steps: int | None, users: int | None
) -> dict[str, Any]:
    from sigma_assets.benchmarks.ablation import AblationOptions
    from sigma_assets.benchmarks.aged_codebooks import aged_results
    from sigma_assets.progress import Reporter

    numbers = tuple(int(part) for part in seeds.split(",") if part.strip())
    if not numbers:
        raise typer.BadParameter("--seeds needs one number at least, such as 0,1,2.")
    options = AblationOptions((), numbers, minutes, steps, users)
    return aged_results(root, day, out, options, Reporter())


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
