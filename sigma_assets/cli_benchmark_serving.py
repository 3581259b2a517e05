"""`sigma benchmark serving`: parses, calls, prints."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sigma_assets.cli_app import Root, Threads, Verbose, prepare
from sigma_assets.cli_benchmark import Out, benchmark_app, publish


@benchmark_app.command()
def serving(
    root: Root = Path("var"),
    out: Out = None,
    repeats: Annotated[int, typer.Option(min=1, help="Made-up users of the incremental figures.")] = 8,
    users: Annotated[int, typer.Option(min=1, help="Users of the load.")] = 200,
    soak_minutes: Annotated[
        float, typer.Option(min=0, help="Mixed load at 80 % of capacity for so long.")
    ] = 0.0,
    malformed: Annotated[int, typer.Option(min=0, help="Requests that break a rule.")] = 0,
    kills: Annotated[int, typer.Option(min=0, help="kill -9 of nearline at so many random moments.")] = 0,
    seed: Annotated[int, typer.Option(help="Of users, load and moments.")] = 17,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Updates with cached KV states, U2I reads, generated answers, soak, malformed requests, kills. The root is not written.

    The ratios are the figures to compare; milliseconds are this machine's, and the load comes from it too.
    """
    prepare(root, threads, verbose)
    from sigma_assets.benchmarks.serving import ServingOptions, run_serving

    def told(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    options = ServingOptions(
        root,
        repeats,
        users=users,
        soak_minutes=soak_minutes,
        malformed=malformed,
        kills=kills,
        seed=seed,
        threads=threads,
    )
    publish(out, *run_serving(options, told))
