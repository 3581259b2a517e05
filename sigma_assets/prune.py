"""`sigma prune`: takes away what old days needed for themselves alone, so that a root does not grow for ever.

Only the heavy artifacts that no other day reads: vectors, index and lists. What anything later may want stays: sources, catalogs,
shards, refits, adapters, promotions, semantic IDs, reports; and vectors of a month's first day, which `ablation_report` reads. A
day taken away is a day that was never made: `sigma materialize` makes it again. Our choice.
"""

from collections.abc import Callable
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Final

from sigma_assets.automation import NEAR_DAYS
from sigma_assets.locking import root_lock
from sigma_assets.periods import as_date, day_key, month_key
from sigma_assets.planner import Step
from sigma_assets.stages import STAGES
from sigma_assets.world import World

LISTS: Final = "user_to_item_index"
PRUNED: Final = (LISTS, "item_index", "item_embeddings")
"""Each before what it reads, so that a stopped prune leaves nobody without an input."""
MIN_DAYS: Final = 2 * NEAR_DAYS  # automation still judges days that are this old
_MEGABYTE: Final = 1_000_000


def prune(root: Path, keep_days: int, told: Callable[[str], None], *, dry_run: bool) -> list[Step]:
    """Take away what is older than `keep_days` before the root's newest day, and return it; with `dry_run` only say it.

    What goes, and how much it is, is told first. Files are looked at under the root's lock; a dry run takes none.

    Raises:
        ValueError: `keep_days` is less than `MIN_DAYS`.
        RootError: there is no root.
        LockedError: another process writes to it.
    """
    if keep_days < MIN_DAYS:
        raise ValueError(
            f"--keep-days must be at least {MIN_DAYS}, arrived {keep_days}: younger days are still worked on."
        )
    world = World.open(root)
    if dry_run:
        return _tell(world, old_steps(world, keep_days), told)
    with root_lock(root, "prune"):
        steps = _tell(world, old_steps(world, keep_days), told)
        for step in steps:
            world.store.remove(step.asset, step.partition)
    return steps


def old_steps(world: World, keep_days: int) -> list[Step]:
    """What `prune` takes away, in its order: assets as in `PRUNED`, oldest first."""
    days = world.store.partitions(LISTS)
    if not days:
        return []
    first_kept = day_key(as_date(days[-1]) - timedelta(days=keep_days))
    of_first_days = {
        read.asset for stage in STAGES.values() for read in stage.reads.values() if read.window == "first_day"
    }
    return [
        Step(asset, key)
        for asset in PRUNED
        for key in world.store.partitions(asset)
        if key < first_kept and not (asset in of_first_days and key == month_key(as_date(key)))
    ]


def _tell(world: World, steps: list[Step], told: Callable[[str], None]) -> list[Step]:
    total = 0.0
    for asset, group in groupby(steps, key=lambda step: step.asset):
        keys = [step.partition for step in group]
        size = sum(_megabytes(world.store.path(asset, key)) for key in keys)
        total += size
        told(f"{asset:<20} {keys[0]} .. {keys[-1]}  {len(keys):>5} days {size:>10,.1f} MB")
    told(f"{total:,.1f} MB in {len(steps)} partitions" if steps else "nothing is that old")
    return steps


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MEGABYTE
