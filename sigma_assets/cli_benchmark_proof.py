"""Verbs `sigma benchmark ablation` and `backtest`: what each part of SIGMA is worth, and how it does on six dates."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sigma_assets.cli_app import AsOf, Root, Threads, Verbose, prepare
from sigma_assets.cli_benchmark import benchmark_app, publish

OutFile = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="The record, as JSON; a report lies beside it.")
]
Users = Annotated[
    int | None, typer.Option("--users", min=1, help="Households judged, chosen by hash. [default: all]")
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
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Train SIGMA and SIGMA without each of its parts on the same data with the same budget, and compare them.

    Needs a materialized day; its artifacts are read, not changed. Every finished arm is kept in the folder FILE.arms, so that a
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
    options = AblationOptions(names, numbers, minutes, steps, users, threads)
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
    from sigma_core.benchmarks.ablation_plots import plot_differences, plot_frontier
    from sigma_core.benchmarks.ablation_text import ablation_markdown

    pictures = {
        "Differences": out.with_name(f"{out.stem}_differences.png"),
        "Accuracy and diversity: APF and fixed temperatures": out.with_name(f"{out.stem}_frontier.png"),
    }
    for path, plot in zip(pictures.values(), (plot_differences, plot_frontier), strict=True):
        plot(record, path)
    names = {title: path.name for title, path in pictures.items()}
    out.with_suffix(".md").write_text(ablation_markdown(record, names))
    typer.echo(f"report: {out.with_suffix('.md')}")
