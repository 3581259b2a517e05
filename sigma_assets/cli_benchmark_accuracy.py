"""`sigma benchmark leave-one-out` and `sequences`, its data: parse, call `sigma_core.benchmarks.leave_one_out`, print."""

from pathlib import Path
from typing import Annotated

import typer

from sigma_assets.cli_benchmark import Out, benchmark_app, publish
from sigma_assets.cli_options import output_folder


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


@benchmark_app.command("sequences")
def sequences(
    source: Annotated[str, typer.Option(help="complete_journey, movielens, amazon or tabular.")],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", callback=output_folder, help="The new folder, for --data."),
    ],
    path: Annotated[Path | None, typer.Option(help="Folder of the source's files, where it has any.")] = None,
    k_core: Annotated[
        int, typer.Option("--k-core", min=1, help="Users of so many items, items of so many users.")
    ] = 5,
    ties: Annotated[
        str, typer.Option(help="Events of equal time: file (as the source has them) or shuffled (by --seed).")
    ] = "file",
    seed: Annotated[int, typer.Option(help="Of shuffled ties.")] = 0,
) -> None:
    """Make the folder that leave-one-out reads, from any source: sequences.txt, items.jsonl, and meta.json, which says how.

    Purchases and ratings only, a user's items once each (the first time counts), thinned to the k-core, oldest first. meta.json
    holds digests of the files, what was left out and why, and the share of users whose last two events have the same time: there
    the order of the source, or the seed, decides which item tests.

    Example: sigma benchmark sequences --source amazon --path beauty-2014 --out amazon-beauty
    """
    import sys

    from sigma_core.benchmarks.leave_one_out.convert import write_sequences
    from sigma_core.benchmarks.record import text_table
    from sigma_core.data.sources import open_source

    meta = write_sequences(
        open_source(source, path),
        out,
        path=path,
        k_core=k_core,
        ties=ties,  # type: ignore[arg-type]  # refused there when it is none
        seed=seed,
    )
    counts = {**meta["counts"], **{f"refused: {why}": n for why, n in meta["counts"]["refused"].items()}}
    del counts["refused"]
    rows = [*counts.items(), *((f"source: {name}", n) for name, n in meta["source_report"].items())]
    rows.append(("users whose last two tie in time", round(meta["last_two_tie_share"], 4)))
    sys.stdout.write(text_table(("", "count"), rows))
    sys.stdout.write(f"written: {out}; next: sigma benchmark leave-one-out --data {out} --out FILE.json\n")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in _names(text))
    except ValueError as error:
        raise ValueError(f"--seeds {text!r}: needed whole numbers by comma, such as 0,1,2.") from error
