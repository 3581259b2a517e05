"""Verbs of `sigma benchmark` on speed and cost (generation, subset-search, shards, training, scaling), and on a day's lists."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sigma_assets.cli_app import Root, prepare
from sigma_assets.cli_benchmark import Out, benchmark_app, publish

BenchThreads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads of both sides.")]
Clock = Annotated[
    str,
    typer.Option(
        help="wall, or cpu: processor seconds, steadier on a machine that others use (with --threads 1)."
    ),
]
Rounds = Annotated[int | None, typer.Option(min=1, help="Timed calls of each side. [default: by verb]")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Small sizes and few calls: a minute, for a first look.")
]
Seed = Annotated[int, typer.Option(help="Seed of the synthetic data.")]


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 from "10000,100000"."""
    parts = [part.strip().replace("_", "") for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise typer.BadParameter(f"{text!r}: needed whole numbers above 0 with commas, such as 10000,100000.")
    return tuple(map(int, parts))


def _clock(text: str) -> Any:
    if text not in ("wall", "cpu"):
        raise typer.BadParameter(f"--clock {text}: there are wall and cpu.")
    return text


def _shown(done: int, total: int, text: str) -> None:
    import sys

    sys.stderr.write(f"  {done}/{total} {text}\n")


def _record(verb: str, results: dict[str, Any], data: dict[str, str], seconds: float) -> dict[str, Any]:
    from sigma_core.benchmarks.record import benchmark_record

    settings = results.pop("settings")
    return benchmark_record(
        verb, results, settings=settings, data=data, seeds=[settings.get("seed", 0)], seconds=seconds
    )


@benchmark_app.command("generation")
def generation(
    out: Out = None,
    catalogs: Annotated[str, typer.Option(help="Items of the catalogs.")] = "10000,100000,1000000",
    batches: Annotated[str, typer.Option(help="Requests answered at a time.")] = "1,64",
    prefixes: Annotated[str, typer.Option(help="K, prefixes searched; the first is the headline.")] = "20,64",
    history: Annotated[int, typer.Option(min=1, help="Items of each user's history.")] = 50,
    backbone: Annotated[str, typer.Option(help="mini, smollm2-135m or a decoder folder.")] = "mini",
    root: Annotated[Path | None, typer.Option(help="A trained root: recall is measured beside.")] = None,
    threads: BenchThreads = 2,
    clock: Clock = "wall",
    rounds: Rounds = None,
    seed: Seed = 17,
    quick: Quick = False,
) -> None:
    """Three-step generation against four-token constrained beam search, same network and items.

    Peers' side is transformers.generate with prefix_allowed_tokens_fn; beside it our own best four-token beam and the floor,
    one pass over the prompt, in our cheapest way and as transformers does it. For a large network: --backbone smollm2-135m --batches 1 --prefixes 20 --rounds 3.
    """
    prepare(root or Path("var"), threads, verbose=False)
    from sigma_core.benchmarks.generation import (
        GenerationSettings,
        recall_by_prefixes,
        recall_data,
        run_generation,
    )
    from sigma_core.benchmarks.record import Stopwatch, text_table

    watch = Stopwatch()
    sizes, widths = _numbers(catalogs), _numbers(prefixes)
    settings = GenerationSettings(
        sizes[:1] if quick else sizes, _numbers(batches), widths[:1] if quick else widths, history,
        rounds or (3 if quick else 15), threads, _clock(clock), backbone, seed=seed,
    )  # fmt: skip
    results = run_generation(settings, _shown)
    data: dict[str, str] = {}
    if root is not None:
        results["recall"] = recall_by_prefixes(root, settings.prefixes, 60 if quick else 300)
        data = recall_data(root)
    columns = ("side", "items", "batch", "prefixes", "requests_per_second", "p50_ms", "p95_ms", "added_mib")
    table = text_table(columns, [[row[name] for name in columns] for row in results["rows"]])
    table += "\n" + text_table(
        ("ratio", "value"), [(k, v) for k, v in results.items() if isinstance(v, float)]
    )
    for row in results.get("recall", []):
        table += f"recall@20 with K {row['prefixes']}: {row['recall@20']:.4f} ({row['users']} users)\n"
    publish(out, _record("generation", results, data, watch.seconds()), table)


@benchmark_app.command("subset-search")
def subset_search(
    out: Out = None,
    items: Annotated[str, typer.Option(help="Rows of the tables, 64 wide.")] = "10000,1000000",
    group_size: Annotated[int, typer.Option(min=1, help="Items under a prefix, on average.")] = 1000,
    faiss: Annotated[
        str, typer.Option(help="Sides of faiss: both, flat, or ivf to save the other's copy.")
    ] = "both",
    threads: BenchThreads = 2,
    clock: Clock = "wall",
    rounds: Rounds = None,
    seed: Seed = 17,
    quick: Quick = False,
) -> None:
    """Step 2 alone: slices of a sorted table against faiss, a flat index a prefix and IVF.

    Ten million rows are left out by default: they hold 2.5 GB three times over (the table, and a copy in each faiss index), with
    --faiss flat or --faiss ivf twice. Where there is memory: --items 10000,1000000,10000000.
    """
    if faiss not in ("both", "flat", "ivf"):
        raise typer.BadParameter(f"--faiss {faiss}: there are both, flat and ivf.")
    prepare(Path("var"), threads, verbose=False)
    from sigma_core.benchmarks.record import Stopwatch, text_table
    from sigma_core.benchmarks.subset_search import FLAT, IVF, SubsetSearchSettings, run_subset_search

    watch = Stopwatch()
    sizes = (10_000,) if quick else _numbers(items)
    results = run_subset_search(
        SubsetSearchSettings(
            sizes,
            group_size=group_size,
            rounds=rounds or 9,
            threads=threads,
            clock=_clock(clock),
            seed=seed,
            faiss={"both": (FLAT, IVF), "flat": (FLAT,), "ivf": (IVF,)}[faiss],
        ),
        _shown,
    )
    columns = ("side", "items", "batch", "ms", "p95_ms", "index_mib", "added_mib")
    table = text_table(columns, [[row[name] for name in columns] for row in results["rows"]])
    publish(out, _record("subset-search", results, {}, watch.seconds()), table)


@benchmark_app.command("shards")
def shards(
    root: Root = Path("var"),
    out: Out = None,
    days: Annotated[
        int, typer.Option(min=1, help="Shards built: the last days the root holds events for.")
    ] = 4,
    year: Annotated[
        bool, typer.Option("--year", help="Spread them over the last year of the root's source instead.")
    ] = False,
    threads: BenchThreads = 2,
    clock: Clock = "wall",
    all_users: Annotated[bool, typer.Option(help="Shards hold every user, not a sample.")] = True,
) -> None:
    """SFT examples a second: our builder against a plain Python loop over the same events; the examples must agree."""
    prepare(root, threads, verbose=False)
    from sigma_core.benchmarks.record import Stopwatch, text_table
    from sigma_core.benchmarks.shards import BUILDER, LOOP, ShardSettings, run_shards

    watch = Stopwatch()
    results = run_shards(root, ShardSettings(days, all_users, year, threads, _clock(clock)), _shown)
    columns = ("side", "examples", "seconds", "examples_per_second", "added_mib")
    table = text_table(columns, [[row[name] for name in columns] for row in results["rows"]])
    table += "".join(
        f"{cut['cut']}: {cut[BUILDER]:.3f} s, loop {cut[LOOP]:.3f} s\n" for cut in results["cuts"]
    )
    table += f"ratio {results['ratio']:.1f}\n"
    publish(out, _record("shards", results, results.pop("data"), watch.seconds()), table)


@benchmark_app.command("training")
def training(
    root: Root = Path("var"),
    out: Out = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches of each side.")] = 12,
    threads: BenchThreads = 2,
    clock: Clock = "wall",
) -> None:
    """Useful tokens a second and padding of our batches against right-padded batches of transformers, on a root's shards."""
    prepare(root, threads, verbose=False)
    from sigma_core.benchmarks.record import Stopwatch, text_table
    from sigma_core.benchmarks.training import TrainingSettings, run_training

    watch = Stopwatch()
    results = run_training(root, TrainingSettings(steps, threads, _clock(clock)), _shown)
    columns = ("side", "tokens_per_second", "requests_per_second", "padding_share", "seconds", "added_mib")
    table = text_table(columns, [[row[name] for name in columns] for row in results["rows"]])
    table += f"ratio {results['ratio']:.2f}\n"
    publish(out, _record("training", results, results.pop("data"), watch.seconds()), table)


@benchmark_app.command("scaling")
def scaling(
    root: Root = Path("var"),
    out: Out = None,
    scales: Annotated[str, typer.Option(help="Multiples of users, items and events.")] = "1,3,10",
    base: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Share of the source's users at scale 1.")
    ] = 0.1,
    days: Annotated[int, typer.Option(min=60, help="Days of events before the root's latest day.")] = 120,
    threads: BenchThreads = 2,
    clock: Clock = "wall",
    rounds: Rounds = None,
) -> None:
    """Time and memory of the stages of a day and of the refit as data grow, with the fitted exponent (1 is linear).

    `one_request` is the cost of a single answer as the catalog grows: it should stay far below 1. Trainings and others whose cost
    a setting fixes are left out; the record says which and why.
    """
    prepare(root, threads, verbose=False)
    from sigma_core.benchmarks.record import Stopwatch, text_table
    from sigma_core.benchmarks.scaling import ScalingSettings, run_scaling

    watch = Stopwatch()
    results = run_scaling(
        root, ScalingSettings(_numbers(scales), base, days, rounds or 2, threads, _clock(clock)), _shown
    )
    columns = ("stage", "scale", "size", "seconds", "microseconds_each", "added_mib")
    table = text_table(columns, [[row[name] for name in columns] for row in results["rows"]])
    table += "\n" + text_table(("stage", "exponent"), list(results["exponents"].items()))
    publish(out, _record("scaling", results, results.pop("data"), watch.seconds()), table)


@benchmark_app.command("diagnosis")
def diagnosis(
    root: Root = Path("var"),
    out: Out = None,
    users: Annotated[int, typer.Option(min=1, help="Users judged, evenly chosen.")] = 300,
    days: Annotated[
        int, typer.Option(min=1, help="Days after the root's latest day whose purchases count.")
    ] = 7,
    threads: BenchThreads = 2,
) -> None:
    """A trained day's lists: recall by head, torso, tail and cold, reliability of the probabilities, examples."""
    prepare(root, threads, verbose=False)
    from sigma_core.benchmarks.diagnosis import run_diagnosis
    from sigma_core.benchmarks.record import Stopwatch, text_table

    watch = Stopwatch()
    results = run_diagnosis(root, users, days, progress=_shown)
    tables = [
        text_table(list(results[name][0]), [list(row.values()) for row in results[name]])
        for name in ("segments", "reliability")
    ]
    error = results["expected_calibration_error"]
    table = "\n".join(
        [*tables, f"recall@20 {results['recall@20']:.4f}, expected calibration error {error:.4f}\n"]
    )
    publish(out, _record("diagnosis", results, results.pop("data"), watch.seconds()), table)
