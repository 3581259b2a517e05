"""`sigma benchmark catalog-update`: what a partial rerun after new items costs, beside the full refit and its own floor.

New items are made from real ones (another maker, so that their words are new). All times are of one machine at one time; the
refit's are Dagster's own records of the root unless they are measured again. Source: issue "benchmarks"; our choice.
"""

import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from sigma_assets.benchmarks.roots import (
    Spent,
    copy_of,
    fresh_world,
    recorded_seconds,
    silent,
    spent,
    stale_steps,
)
from sigma_assets.binding import read_binding
from sigma_assets.catalog_update import CATALOG_UPDATE, CatalogUpdate, catalog_update
from sigma_assets.io_manager import load
from sigma_assets.jobs import JOBS
from sigma_assets.masters import current_master
from sigma_assets.periods import day_key, month_key
from sigma_assets.planner import Step
from sigma_assets.resources import BEAMS, VECTORS
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.benchmarks.record import Stopwatch, benchmark_record

U2I: Final = "user_to_item_index"
_MONTHLY: Final = next(job.assets for job in JOBS if job.name == "monthly_refit")
_DAILY: Final = next(job.assets for job in JOBS if job.name == "daily_refresh")


@dataclass(frozen=True)
class Sizes:
    """What is measured how often."""

    share: float = 0.01  # of the day's catalog
    repeats: int = 3
    seed: int = 0
    rerun_refit: bool = False


def new_items(products: pl.DataFrame, items: list[str], number: int, seed: int) -> pl.DataFrame:
    """`number` items nobody has seen: real ones of `items` under new ids, each of a maker of its own."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(np.asarray(sorted(items)), size=number, replace=False).tolist()
    rows = products.filter(pl.col(c.ITEM_ID).is_in(chosen)).head(number)
    names = [f"new-{seed}-{n}" for n in range(rows.height)]
    makers = [f"9{seed:02}{n:04}" for n in range(rows.height)]
    return rows.with_columns(
        pl.Series(c.ITEM_ID, names, dtype=pl.String), pl.Series(c.MAKER, makers, dtype=pl.String)
    ).select(products.columns)


def run(root: Path, day: date, sizes: Sizes) -> dict[str, Any]:
    """The record of the benchmark, measured on a copy of `root`.

    Raises:
        PlanError: the day is not materialized, or not fresh.
    """
    watch = Stopwatch()
    world = fresh_world(root, day)
    _warm_up()
    with copy_of(root) as copy:
        refit, refit_cpu = _refit_seconds(copy, day, again=sizes.rerun_refit)
        results = _results(refit, refit_cpu, *_rounds(copy, day, sizes))
    return benchmark_record(
        "catalog-update",
        results,
        settings={
            "share": sizes.share,
            "repeats": sizes.repeats,
            "day": day.isoformat(),
            "profile": world.binding.profile,
            "refit": "rerun in this process" if sizes.rerun_refit else "Dagster's records of the root",
        },
        data={"root": world.binding.fingerprint},
        seeds=[sizes.seed + n for n in range(sizes.repeats + 1)],
        seconds=watch.seconds(),
    )


def _warm_up() -> None:
    """Import what an update needs: what is measured in process begins after this."""
    import torch  # noqa: F401

    import sigma_core.grounding.encoder
    import sigma_core.serving.engine  # noqa: F401
    from sigma_assets.checks.gx_suite import check_suite

    check_suite(())  # imports Great Expectations


def _rounds(copy: Path, day: date, sizes: Sizes) -> tuple[list[dict[str, float]], Spent]:
    """One dict of figures a repeat, after one round that warms caches up; and what the command line took."""
    rounds: list[dict[str, float]] = []
    for number in range(sizes.repeats + 1):
        path, before = _next_catalog(copy, day, sizes, number), _semantic_ids(copy, day)
        done: list[tuple[World, CatalogUpdate]] = []
        without = spent(
            lambda path=path, done=done: done.append(  # type: ignore[misc]
                catalog_update(copy, day, path, silent(), steps=CATALOG_UPDATE[:-1])
            )
        )
        world, update = done[0]
        lists = spent(lambda path=path: catalog_update(copy, day, path, silent()))  # type: ignore[misc]
        rounds.append(_figures(world, day, update, before))
        rounds[-1] |= _named("without_u2i", without) | _named("u2i", lists) | _floor(world, day, update)
    path = _next_catalog(copy, day, sizes, sizes.repeats + 1)
    command = [sys.executable, "-m", "sigma_assets.cli", "catalog-update", "--root", str(copy)]
    command += ["--date", day.isoformat(), "--path", str(path)]
    shell = spent(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    return rounds[1:], shell


def _named(name: str, what: Spent) -> dict[str, float]:
    return {f"{name}_seconds": what.wall, f"{name}_cpu_seconds": what.cpu}


def _next_catalog(copy: Path, day: date, sizes: Sizes, number: int) -> Path:
    """The day's master with another share of new items, as a file."""
    products = current_master(copy, read_binding(copy), day)
    items = World.open(copy).store.read(STAGES["item_catalog"].artifact_type(), "item_catalog", day_key(day))
    known = [item for item in items.frame[c.ITEM_ID].to_list() if not item.startswith("new-")]
    added = new_items(products, known, max(round(sizes.share * len(known)), 1), sizes.seed + number)
    path = copy.parent / f"catalog-{number}.parquet"
    pl.concat([products, added]).write_parquet(path)
    return path


def _semantic_ids(copy: Path, day: date) -> dict[str, list[int]]:
    store = World.open(copy).store
    frame = store.read(STAGES["semantic_id_map"].artifact_type(), "semantic_id_map", day_key(day)).frame
    return dict(frame.select(c.ITEM_ID, c.CODES).iter_rows())


def _figures(
    world: World, day: date, update: CatalogUpdate, before: dict[str, list[int]]
) -> dict[str, float]:
    after = _semantic_ids(world.root, day)
    added = set(after) - set(before)
    fresh = World.open(world.root)
    others = [
        Step(name, key)
        for name in STAGES
        if name not in CATALOG_UPDATE
        for key in fresh.store.partitions(name)
        if name
        not in ("eval_report", "ablation_report")  # they judge the day, and so are out of date by design
    ]
    lists = load(world, U2I, day_key(day)).frame
    return {
        "new_items": len(added),
        "texts_encoded": update.texts_encoded,
        "sids_changed": sum(before[item] != sid for item, sid in after.items() if item in before),
        "stale_elsewhere": len(stale_steps(fresh, others)),
        "new_items_in_index": len(added & set(load(world, "item_index", day_key(day)).item_ids)),
        "lists_with_a_new_item": lists.filter(pl.col(c.ITEM_ID).is_in(sorted(added)))[c.USER_ID].n_unique(),
    }


def _floor(world: World, day: date, update: CatalogUpdate) -> dict[str, float]:
    """Seconds of what cannot be left out: encoding the new texts, and writing the index."""
    encoder = load(world, "grounded_encoder", month_key(day))
    catalog = load(world, "item_catalog", day_key(day)).frame
    added = update.diff.items["new"] if update.diff else []
    texts = catalog.filter(pl.col(c.ITEM_ID).is_in(added))[c.TEXT].unique().sort().to_list()
    index = load(world, "item_index", day_key(day))
    encode = spent(lambda: encoder.encode(texts))
    written = spent(lambda: world.store.write("benchmark_index", "floor", index))
    return _named("floor_encode", encode) | _named("floor_write", written)


def _results(
    refit: dict[str, float], refit_cpu: float | None, rounds: list[dict[str, float]], shell: Spent
) -> dict[str, Any]:
    """The figures of a record; `ratio_of_cpu_seconds` where the refit's were measured: Dagster's records hold wall seconds only."""
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    full = sum(refit.values())
    return {
        "ratio": shell.wall / full if full else None,
        "ratio_of_cpu_seconds": shell.cpu / refit_cpu if refit_cpu else None,
        "over_floor": _over_floor(rounds, ""),
        "over_floor_of_cpu_seconds": _over_floor(rounds, "_cpu"),
        **middle,
        "sids_changed": int(max(one["sids_changed"] for one in rounds)),
        "stale_elsewhere": int(max(one["stale_elsewhere"] for one in rounds)),
        **_named("command_line", shell),
        "full_refit_seconds": full,
        "refit_by_step": refit,
        "rounds": rounds,
        "aged_30": None,
        "aged_90": None,
    }


def _over_floor(rounds: list[dict[str, float]], kind: str) -> float:
    """Median of each round against the floor of its own minute."""
    return statistics.median(
        one[f"without_u2i{kind}_seconds"]
        / (one[f"floor_encode{kind}_seconds"] + one[f"floor_write{kind}_seconds"])
        for one in rounds
    )


def _refit_seconds(copy: Path, day: date, *, again: bool) -> tuple[dict[str, float], float | None]:
    """Wall seconds of the month's stages and of the day's, by step, and the processor seconds of all, known when made again.

    A step that Dagster has no record of is missing.
    """
    from sigma_assets.commands import runner_of

    world = World.open(copy)
    steps = [Step(asset, month_key(day)) for asset in _MONTHLY]
    steps += [Step(asset, day_key(day)) for asset in _DAILY]
    with runner_of(world, silent(), verbose=False) as runner:
        if not again:
            return recorded_seconds(runner.instance, steps), None
        for memory in (BEAMS, VECTORS):  # a refit finds nothing made before
            shutil.rmtree(copy / memory, ignore_errors=True)

        def make_again() -> None:
            for step in steps:
                world.mark_failure(step.asset, step.partition, "made again to be timed")
                runner.run_singly([step])

        took = spent(make_again)
        return {str(one.step): one.seconds for one in runner.done}, took.cpu
