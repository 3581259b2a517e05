"""`sigma benchmark leave-one-out`: parse, call `sigma_core.benchmarks.leave_one_out`, print."""

from pathlib import Path
from typing import Annotated

import typer

from sigma_assets.cli_benchmark import Out, benchmark_app, publish


@benchmark_app.command("leave-one-out")
def leave_one_out(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder with sequences.txt and items.jsonl.")
    ],
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, by comma.")] = "0,1,2",
    models: Annotated[
        str, typer.Option("--models", help="Some of the models, by comma; all when left out.")
    ] = "",
    protocols: Annotated[
        str, typer.Option("--protocols", help="strict, refit or both, by comma.")
    ] = "strict,refit",
    out: Out = None,
) -> None:
    """Accuracy of SIGMA and its opponents on sequences, by leave-one-out, with full ranking.

    strict: trained on all but the last two items of each user. refit: settings and epochs chosen on the item before the last,
    then trained on all but the last. Published figures rarely say which one they used; compare within one protocol only.

    With --out FILE, results, networks and each user's ranks are kept in FILE.parts: the same command goes on where it was
    stopped, and a longer list of seeds or models only adds what is missing.

    Example: sigma benchmark leave-one-out --data amazon-beauty --seeds 0 --models sasrec_ce,sigma --out beauty.json
    """
    import sys

    from sigma_core.benchmarks.leave_one_out.models import MODELS
    from sigma_core.benchmarks.leave_one_out.run import run, table

    record = run(
        data,
        seeds=_numbers(seeds),
        models=_names(models) or tuple(MODELS),
        protocols=_names(protocols),  # type: ignore[arg-type]  # run() refuses what it does not know
        keep=None if out is None else out.with_name(out.name + ".parts"),
        report=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
    )
    publish(out, record, table(record))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in _names(text))
    except ValueError as error:
        raise ValueError(f"--seeds {text!r}: needed whole numbers by comma, such as 0,1,2.") from error
