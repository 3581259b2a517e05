"""`sigma materialize --from --to`: many days, one after the other, none of which stops the others.

Each day is planned and read exactly as `--as-of` plans it (a day reads the refit of its own month, so refits never mix), and
what is fresh is left alone: the same command goes on where a former one ended. A step that fails, or cannot read what a failed
one should have made, is noted with its reason and not tried twice; windows go on without a few missing days, as everywhere.
Our choice.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sigma_assets.binding import Request, resolve, save
from sigma_assets.locking import root_lock
from sigma_assets.masters import remember_first
from sigma_assets.periods import SELECT, as_date, day_key
from sigma_assets.planner import PlanError, Step, plan_day
from sigma_assets.progress import Reporter
from sigma_assets.stages import SOURCES
from sigma_assets.window import readable
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError

if TYPE_CHECKING:
    from sigma_assets.runner import Done, Runner


@dataclass
class DayMade:
    """What became of a day. `problems` names what failed or could not be read; empty: everything it needs is there."""

    day: date
    made: int = 0
    fresh: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def backfill(
    root: Path, first: date, last: date, request: Request, reporter: Reporter, *, verbose: bool = False
) -> tuple[World, list[DayMade]]:
    """Make every day from `first` to `last`, both included, oldest first.

    Raises:
        PlanError: the range is empty, or a day of it cannot be made from these data; nothing has run then.
        RootError, ConfigError, SourceError, LockedError: see their classes.
    """
    if first > last:
        raise PlanError(f"--from {first} is after --to {last}.")
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    with root_lock(root, "materialize"):
        binding, notes = resolve(root, request)
        world = World(root, binding)
        plans = {day: plan_day(day, world.span) for day in days}
        save(root, binding)
        remember_first(root, binding)
        for note in notes:
            reporter.line(f"note: {note}")
        from sigma_assets.commands import runner_of

        with runner_of(world, reporter, verbose=verbose) as runner:
            failed: dict[Step, str] = {}
            return world, [_make(runner, day, plan, failed) for day, plan in plans.items()]


def _make(runner: "Runner", day: date, plan: list[Step], failed: dict[Step, str]) -> DayMade:
    """Run what can be run of a day; new failures are added to `failed`."""
    runner.reporter.line(f"== {day}")
    before = len(runner.done)
    runner.run([step for step in plan if step.asset in SOURCES and step not in failed])
    outcome = DayMade(day)
    for step in plan:
        if step.asset in SOURCES:
            continue
        if step not in failed and (why := _try(runner, step, failed)):
            failed[step] = why
            runner.reporter.line(f"warning: {step}: {why}")
        if step in failed and _matters(runner.world, step, plan):
            outcome.problems.append(f"{step}: {failed[step]}")
    done: list[Done] = runner.done[before:]
    outcome.fresh = sum(one.is_fresh for one in done)
    outcome.made = len(done) - outcome.fresh
    outcome.seconds = sum(one.seconds for one in done)
    if outcome.problems and not runner.world.why_stale(plan[-1].stage, plan[-1].partition):
        outcome.problems = []  # the day's lists are there, made without what a window could spare
    return outcome


def _try(runner: "Runner", step: Step, failed: dict[Step, str]) -> str:
    """Run a step if it has to be; returns why it could not be made, "" when it is there."""
    from sigma_assets.runner import StepError

    if runner.world.why_stale(step.stage, step.partition) and (
        why := _unreadable(runner.world, step, failed)
    ):
        return why
    try:
        runner.run([step])
    except StepError as error:
        return str(error).removeprefix(f"{step}: ")
    return ""


def _unreadable(world: World, step: Step, failed: dict[Step, str]) -> str:
    """Why the step's inputs cannot be read; "" when they can."""
    for read in step.stage.reads.values():
        keys = SELECT[read.window](as_date(step.partition), world.span)
        if not read.is_window and any(Step(read.asset, key) in failed for key in keys):
            return f"needs {read.asset}[{keys[0]}], which could not be made"
        try:
            readable(world, read, step.partition)
        except ArtifactError as error:
            return str(error)
    return ""


def _matters(world: World, step: Step, plan: list[Step]) -> bool:
    """Whether a failed step is the day's own business: a first cause, not one of its consequences."""
    inputs = {
        Step(read.asset, key)
        for read in step.stage.reads.values()
        for key in SELECT[read.window](as_date(step.partition), world.span)
    }
    return not any(
        one in inputs and one.asset not in SOURCES and world.why_stale(one.stage, one.partition)
        for one in plan
    )


def summary_lines(days: list[DayMade]) -> list[str]:
    """A line a day, and one for all of them."""
    lines = [
        f"{day_key(one.day)}  {one.made:>3} made  {one.fresh:>4} fresh  {one.seconds:7.1f} s"
        + (f"  NOT MADE: {'; '.join(one.problems)}" if one.problems else "")
        for one in days
    ]
    bad = sum(bool(one.problems) for one in days)
    end = (
        f"{bad} of {len(days)} days could not be made; mend the cause, and the same command tries them again"
    )
    return [*lines, end if bad else f"all {len(days)} days are there"]
