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
from sigma_core.devices import check_device

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
        check_device(binding.config().runtime.device)  # also where the root knows it: it may have moved
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
    before, known = len(runner.done), set(failed)
    for asset in SOURCES:
        _ingest(runner, [step for step in plan if step.asset == asset and step not in failed], failed)
    _derive(runner, plan, failed)
    for step in plan:
        if step in failed and step not in known:
            runner.reporter.line(f"warning: {step}: {failed[step]}")
    done: list[Done] = runner.done[before:]
    fresh = sum(one.is_fresh for one in done)
    outcome = DayMade(day, len(done) - fresh, fresh, sum(one.seconds for one in done))
    lists = plan[-1]
    if runner.world.why_stale(
        lists.stage, lists.partition
    ):  # else they are there, without what windows spared
        causes = [step for step in plan if step in failed and not _is_consequence(runner.world, step, failed)]
        outcome.problems = [f"{step}: {failed[step]}" for step in causes]
    return outcome


def _derive(runner: "Runner", plan: list[Step], failed: dict[Step, str]) -> None:
    """Run what can be run of the derived steps; once more where a refused refit gave way to the former one meanwhile."""
    done, republished = len(runner.done), runner.num_republished
    for step in plan:
        if step.asset not in SOURCES and step not in failed and (why := _try(runner, step, failed)):
            failed[step] = why
    if runner.num_republished > republished:
        del runner.done[done:]
        _derive(runner, plan, failed)


def _ingest(runner: "Runner", steps: list[Step], failed: dict[Step, str]) -> None:
    """Bring in what can be read of a source asset; what breaks its contract or lacks its own day is added to `failed`."""
    ready = []
    for step in steps:
        stale = runner.world.why_stale(step.stage, step.partition)
        if stale and (why := _unreadable(runner.world, step, failed)):
            failed[step] = why
        else:
            ready.append(step)
    runner.run(ready)
    for step in ready:
        if (refused := runner.world.failure(step.asset, step.partition)) is not None:
            failed[step] = refused


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


def _is_consequence(world: World, step: Step, failed: dict[Step, str]) -> bool:
    """Whether something that the step reads failed, so that its own message is no news."""
    return any(
        Step(read.asset, key) in failed
        for read in step.stage.reads.values()
        for key in SELECT[read.window](as_date(step.partition), world.span)
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
