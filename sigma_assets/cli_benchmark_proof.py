"""Verbs `sigma benchmark ablation`, `ablation-report` and `backtest`: what each part of SIGMA is worth, and how it does on six dates."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sigma_assets.cli_app import AsOf, Root, Threads, Verbose, prepare
from sigma_assets.cli_benchmark import benchmark_app, publish
from sigma_assets.cli_options import output_file_and_folder

OutFile = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        callback=output_file_and_folder,
        help="The record, as JSON; a report lies beside it.",
    ),
]
Users = Annotated[
    int | None, typer.Option("--users", min=1, help="Households judged, chosen by hash. [default: all]")
]
StaleOk = Annotated[
    bool,
    typer.Option(
        "--stale-ok",
        help="Measure a root of other code, settings or inputs than now as it is; the record names the steps.",
    ),
]


@benchmark_app.command()
def ablation(
    as_of: AsOf,
    out: OutFile,
    root: Root = Path("var"),
    arms: Annotated[
        str,
        typer.Option(help="all, headline, or names with commas between; an unknown name lists them."),
    ] = "all",
    seeds: Annotated[str, typer.Option(help="Each arm is trained once a seed.")] = "0,1,2",
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Training time of SIGMA here; every arm gets as many steps.")
    ] = 5.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="That number of steps itself, instead of timing a few.")
    ] = None,
    users: Users = None,
    stale_ok: StaleOk = False,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Train SIGMA and SIGMA without each of its parts on the same data with the same budget, and compare them.

    Needs a materialized day; its artifacts are read, not changed. Judged are at most 3 query and 3 category requests a household,
    whatever evaluation.max_requests_per_task says. Every finished arm is kept in the folder FILE.arms, so that a
    stopped run goes on and a second one only gathers. Beside FILE a report (.md) and plots (.png) are written.
    """
    prepare(root, threads, verbose)
    from sigma_assets.benchmarks.ablation import AblationOptions, run
    from sigma_assets.progress import Reporter
    from sigma_core.config import parse_date

    numbers = tuple(int(part) for part in seeds.split(",") if part.strip())
    if not numbers:
        raise typer.BadParameter("--seeds needs one number at least, such as 0,1,2.")
    names = tuple(part.strip() for part in arms.split(",") if part.strip())
    options = AblationOptions(names, numbers, minutes, steps, users, threads, stale_ok)
    record = run(root, parse_date(as_of), out, options, Reporter())
    publish(out, record, _ablation_table(record))
    _write_report(out, record)


def _ablation_table(record: dict[str, Any]) -> str:
    from sigma_core.benchmarks.record import text_table

    tasks = list(record["tasks"])
    rows = [
        [name, *(by_task.get(task, {}).get("recall@20", {}).get("mean") for task in tasks)]
        for name, by_task in record["arms"].items()
    ]
    return "recall@20\n" + text_table(("arm", *tasks), rows)


def _write_report(out: Path, record: dict[str, Any]) -> None:
    from sigma_core.benchmarks.ablation_artifact import PICTURES, write_report

    pictures = {title: out.with_name(f"{out.stem}_{file}") for title, file in PICTURES.items()}
    write_report(record, out.with_suffix(".md"), pictures)
    typer.echo(f"report: {out.with_suffix('.md')}")


@benchmark_app.command("ablation-report")
def ablation_report(as_of: AsOf, root: Root = Path("var"), verbose: Verbose = False) -> None:
    """The asset `ablation_report` of a date's month: few arms and steps, judged on the month's first days.

    Made only when asked for, here or by the job `monthly_ablation`; what it reads of the month is made with it. Arms, seeds, steps
    and households are settings of section `ablation`. A stopped run goes on.
    """
    prepare(root, None, verbose)
    from sigma_assets.commands import ablate
    from sigma_assets.progress import Reporter
    from sigma_core.config import parse_date

    folder, values = ablate(root, parse_date(as_of), Reporter(), verbose=verbose)
    typer.echo(_ablation_table(values))
    typer.echo(f"report: {folder}")


@benchmark_app.command()
def backtest(
    out: OutFile,
    dates: Annotated[
        str | None, typer.Option(help="Days with commas between. [default: the six of Complete Journey]")
    ] = None,
    roots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Holds a root a date, DIR/DATE; missing ones are made. [default: FILE.roots]"
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Of roots that are made. [default: complete_journey]")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="Folder of the source's files, where it has any.")] = None,
    profile: Annotated[str | None, typer.Option(help="Of roots that are made. [default: demo]")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting of roots that are made."),
    ] = None,
    users: Users = None,
    lift_users: Annotated[
        int | None,
        typer.Option(min=1, help="Of these, for other wordings and confined lists. [default: all]"),
    ] = None,
    sasrec: Annotated[
        bool,
        typer.Option(
            "--sasrec",
            help="One more opponent, SASRec, trained on each day's history: an hour a day on one core.",
        ),
    ] = False,
    stale_ok: StaleOk = False,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Judge SIGMA beside all opponents on several dates, each from a root of its own, and pool the dates.

    A root that is there is used as it is, under its own profile and settings (the record holds them); one that is not fresh is
    refused. Judged are at most 3 query and 3 category requests a household, whatever evaluation.max_requests_per_task says.

    Settings were chosen on 2017-04-08, 2017-06-26 and 2017-11-15, so only the other three of the six prove anything; both
    groups are pooled. A stopped run goes on; judged dates are kept in the folder FILE.days. Beside FILE a report (.md) is
    written.
    """
    prepare(roots or Path("var"), threads, verbose)
    from sigma_assets.benchmarks.backtest import BacktestOptions, run
    from sigma_assets.binding import Request
    from sigma_assets.progress import Reporter
    from sigma_core.benchmarks.backtest_values import ROLES, backtest_markdown
    from sigma_core.config import parse_date

    days = (
        tuple(sorted({parse_date(d.strip()) for d in dates.split(",") if d.strip()}))
        if dates
        else tuple(ROLES)
    )
    if not days:
        raise typer.BadParameter("--dates needs one day at least, such as 2017-10-23.")
    settings = (*(set_ or ()), *((f"runtime.threads={threads}",) if threads else ()))
    request = Request(source, path, profile, None, settings)
    options = BacktestOptions(days, request, users, lift_users, threads, sasrec, stale_ok)
    record = run(roots or out.with_name(f"{out.stem}.roots"), out, options, Reporter())
    publish(out, record, _backtest_table(record))
    out.with_suffix(".md").write_text(backtest_markdown(record))
    typer.echo(f"report: {out.with_suffix('.md')}")


def _backtest_table(record: dict[str, Any]) -> str:
    from sigma_core.benchmarks.record import text_table

    rows = []
    tables = dict(record["dates"])
    tables |= {f"pooled {role}": found["tasks"] for role, found in record["pooled"].items()}
    for name, tasks in tables.items():
        for task, found in tasks.items():
            if best := found["strongest"]:
                difference = found["differences"][best]["recall@20"]
                mine, other = (found["models"][m]["recall@20"]["mean"] for m in ("sigma", best))
                rows.append(
                    [
                        name,
                        task,
                        found["targets"],
                        mine,
                        other,
                        best,
                        *(difference[k] for k in ("mean", "low", "high")),
                    ]
                )
    header = ("day", "task", "targets", "sigma", "strongest", "", "difference", "low", "high")
    return "recall@20\n" + text_table(header, rows)
