"""Copies of a root to measure on, and what its own Dagster records say of the past.

A measurement never changes the root it was asked about. Artifacts are linked, not copied: they are replaced, never edited.
Our choice.
"""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sigma_assets.planner import PlanError, Step, plan_day
from sigma_assets.progress import Reporter
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError

if TYPE_CHECKING:
    import dagster as dg

LEFT_OUT: Final = ("wandb", "inbox", ".lock")


class Spent(NamedTuple):
    """What a piece of work took: seconds by the wall clock, and of processors (its children's too).

    On a machine that others use the second one is what the work costs; alone on it, single-threaded, both are nearly equal.
    """

    wall: float
    cpu: float


def spent(call: Callable[[], Any]) -> Spent:
    """Do the work and say what it took."""
    before, began = os.times(), time.perf_counter()
    call()
    wall, after = time.perf_counter() - began, os.times()
    return Spent(wall, sum(after[:4]) - sum(before[:4]))


def silent() -> Reporter:
    """A reporter that nobody sees, so that nothing is printed while the clock runs."""
    return Reporter(io.StringIO())


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """A copy of a root on the same disk, gone after the block."""
    with TemporaryDirectory(prefix=".benchmark-", dir=root.resolve().parent) as folder:
        copy = Path(folder) / "root"
        for path in root.iterdir():
            if path.name in LEFT_OUT:
                continue
            if path.is_dir():
                link = path.name in STAGES
                copier = os.link if link else shutil.copy2
                shutil.copytree(path, copy / path.name, copy_function=copier)
            else:
                copy.mkdir(exist_ok=True)
                shutil.copy2(path, copy / path.name)
        yield copy


def fresh_world(root: Path, day: date) -> World:
    """The world of a root in which a day has everything it needs.

    Raises:
        PlanError: the day is not materialized, or not fresh.
    """
    world = World.open(root)
    if stale := stale_steps(world, plan_day(day, world.span)):
        raise PlanError(
            f"{len(stale)} partitions of {day} are not fresh in {root} (first: {stale[0]}); "
            f"run `sigma materialize --as-of {day} --root {root}` first."
        )
    return world


def stale_steps(world: World, steps: Iterable[Step]) -> list[Step]:
    """Those of the steps that would run if they were asked for."""
    return [step for step in steps if world.why_stale(step.stage, step.partition) is not None]


def outdated(world: World, steps: Iterable[Step], stale_ok: bool = False) -> dict[str, str]:
    """Why, by step: those that are there and are of other code, settings or inputs than the root's of now.

    What is missing, or failed its check, is left out: who needs it is told when it is read, and windows go without it.

    Raises:
        ArtifactError: there is one, and it is not `stale_ok`.
    """
    there = [
        step
        for step in steps
        if world.manifest(step.asset, step.partition) and not world.failure(step.asset, step.partition)
    ]
    found = {str(step): why for step in there if (why := world.why_stale(step.stage, step.partition))}
    if found and not stale_ok:
        first, why = next(iter(found.items()))
        raise ArtifactError(
            f"{len(found)} of {len(there)} partitions in {world.root} are not of this code, its settings and its data (first: "
            f"{first}: {why}). Run `sigma materialize --as-of DATE --root {world.root}` for the day first, or give --stale-ok "
            "to measure them as they are: the record then names them."
        )
    return found


def recorded_seconds(instance: "dg.DagsterInstance", steps: Iterable[Step]) -> dict[str, float]:
    """How long the newest successful run of each step took, by Dagster's records; a step without one is missing."""
    import dagster as dg

    found = {}
    for step in steps:
        records = instance.get_run_records(
            dg.RunsFilter(tags={"dagster/partition": step.partition}, statuses=[dg.DagsterRunStatus.SUCCESS])
        )
        for record in records:
            selected = {key.path[-1] for key in record.dagster_run.asset_selection or ()}
            if selected == {step.asset} and record.start_time and record.end_time:
                found[str(step)] = record.end_time - record.start_time
                break
    return found
