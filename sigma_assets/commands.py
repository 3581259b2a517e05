"""What the verbs `materialize`, `evaluate` and `benchmark ablation-report` do: bind, plan, run, under the root's lock.

Dagster is imported only when a root is opened for writing. The command line (`cli.py`) parses and prints.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigma_assets.binding import Request, read_binding, resolve, save
from sigma_assets.locking import root_lock
from sigma_assets.masters import remember_first
from sigma_assets.periods import MAX_EDGE, ROLLUP_LAG_DAYS, as_date, day_key, month_key
from sigma_assets.planner import PlanError, Step, evaluation_days, plan, plan_day
from sigma_assets.progress import Reporter
from sigma_assets.promotion_orders import why_kept
from sigma_assets.world import World
from sigma_core.devices import check_device

if TYPE_CHECKING:
    from sigma_assets.runner import Done, Runner


@dataclass(frozen=True)
class EvaluateOptions:
    """How a day is judged; None: as configured."""

    horizon_days: int | None = None
    sample_households: int | None = None
    lift_households: int | None = None
    max_requests: int | None = None

    def run_config(self) -> dict[str, Any]:
        """The options that the asset's run config takes, those given only."""
        given = {
            "horizon_days": self.horizon_days,
            "sample_households": self.sample_households,
            "lift_households": self.lift_households,
            "max_requests": self.max_requests,
        }
        return {key: value for key, value in given.items() if value is not None}


def materialize(
    root: Path, as_of: date, request: Request, reporter: Reporter, *, verbose: bool = False
) -> tuple[World, list["Done"]]:
    """Make exactly the partitions that `as_of` needs and that are not fresh.

    Raises:
        RootError, ConfigError, SourceError, PlanError, LockedError, StepError: see their classes.
    """
    with root_lock(root, "materialize"):
        binding, notes = resolve(root, request)
        check_device(binding.config().runtime.device)  # also where the root knows it: it may have moved
        world = World(root, binding)
        steps = plan_day(as_of, world.span)
        save(root, binding)  # only now: a date that cannot be made binds nothing
        remember_first(root, binding)
        for note in notes:
            reporter.line(f"note: {note}")
        with runner_of(world, reporter, verbose=verbose) as runner:
            done = runner.run(steps)
        if any(not one.is_fresh for one in done) and (kept := why_kept(world, day_key(as_of))):
            reporter.line(f"warning: {kept}")
        return world, done


def evaluate(
    root: Path, as_of: date, options: EvaluateOptions, reporter: Reporter, *, verbose: bool = False
) -> tuple[World, list["Done"], dict[str, Any]]:
    """Judge a materialized day on the days after it; returns the report's JSON.

    Ingests the horizon's events; never makes what `materialize` makes.

    Raises:
        PlanError: the day is not materialized, or the source ends before its horizon does.
        RootError, LockedError, StepError: see their classes.
    """
    binding = read_binding(root)
    horizon = options.horizon_days or binding.config().data.horizon_days
    if not 1 <= horizon <= MAX_EDGE - ROLLUP_LAG_DAYS:
        raise PlanError(
            f"--horizon-days must lie between 1 and {MAX_EDGE - ROLLUP_LAG_DAYS}, arrived {horizon}."
        )
    with root_lock(root, "evaluate"):
        world = World(root, binding, horizon)
        _need_materialized(world, as_of)
        steps = [*evaluation_days(as_of, horizon, world.span), Step("eval_report", day_key(as_of))]
        with runner_of(world, reporter, verbose=verbose) as runner:
            done = runner.run(steps, {"eval_report": options.run_config()})
    return world, done, report_json(world, as_of)


def ablate(
    root: Path, day: date, reporter: Reporter, *, verbose: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Make `ablation_report` of the day's month and what it reads; returns its folder and its JSON value.

    Raises:
        PlanError: the source ends before the horizon of the month's first day, or begins too late for the month's refit.
        RootError, LockedError, StepError: see their classes.
    """
    from sigma_core.benchmarks.ablation_artifact import AblationReport

    binding, month = read_binding(root), month_key(day)
    with root_lock(root, "ablation-report"):
        world = World(root, binding)
        evaluation_days(
            as_date(month), world.span.horizon, world.span
        )  # refuses a month that cannot be judged
        with runner_of(world, reporter, verbose=verbose) as runner:
            runner.run(plan([Step("ablation_report", month)], world.span))
    report = world.store.read(AblationReport, "ablation_report", month)
    return world.store.path("ablation_report", month), report.values


def follow_events(root: Path, events: Path, told: Callable[[str], None], *, follow: bool) -> None:
    """Take events in and refresh their users, telling what happens line by line. With `follow` it never ends.

    Takes over a newly published day between two looks. A file that cannot be read is told once and tried again at every
    look; without `follow` it is an error, after all others were taken in.

    Raises:
        RequestError: the root holds nothing to answer from.
        SourceError: there is nothing at `events`, or a file of another kind, or one that cannot be read.
    """
    import time

    from sigma_core.data.sources.base import SourceError
    from sigma_core.serving.event_files import event_files
    from sigma_core.serving.holder import Holder, load_live_day
    from sigma_core.serving.live_store import LiveStore

    event_files(events)  # a wrong path is said before anything is loaded
    live = load_live_day(root)
    store = LiveStore.of_root(root)
    holder = Holder(root, live, None, store, live.config.nearline)
    before: list[str] = []
    while True:
        done = holder.take_in(events, told)
        if done.unread and not follow:
            raise SourceError("; ".join(done.unread))
        for line in done.unread:
            if line not in before:
                told(f"left for the next look: {line}")
        before = done.unread
        if not follow:
            counts = store.counts()
            told(
                f"{done.new} new events, {done.duplicates} known, {done.refused} refused; {done.refreshed} users refreshed; "
                f"the store holds {counts['events']} events, {counts['lists']} lists"
            )
            return
        time.sleep(live.config.nearline.poll_seconds)
        if holder.refresh():
            told(f"now on {holder.live.day} (model {holder.live.model})")


def _need_materialized(world: World, as_of: date) -> None:
    if world.manifest("user_to_item_index", day_key(as_of)):
        return
    days = world.store.partitions("user_to_item_index")
    there = f"There are {', '.join(days[-5:])}" if days else "No day is"
    raise PlanError(
        f"{as_of} is not materialized in {world.root}. {there}. "
        f"Run `sigma materialize --as-of {as_of} --root {world.root}` first."
    )


def report_json(world: World, as_of: date) -> dict[str, Any]:
    """The JSON of a day's report, as it lies in the root."""
    path = world.store.path("eval_report", day_key(as_of)) / "report.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@contextmanager
def runner_of(world: World, reporter: Reporter, *, alone: bool = True, verbose: bool) -> Iterator["Runner"]:
    """A runner for the root after what a killed process left has been cleared away. Call under the root's lock.

    Not `alone` (an order beside an open UI): what looks left behind may belong to a run of the UI, and stays.
    """
    for path in world.store.sweep() if alone else ():
        reporter.line(f"note: removed {path.name}, left behind by a killed run")
    from sigma_assets.instance import bury_dead_runs, open_instance, reconcile
    from sigma_assets.runner import Runner

    with open_instance(world.root) as instance:
        if dead := bury_dead_runs(instance, beside_ui=not alone):
            reporter.line(f"note: marked {len(dead)} run(s) of killed processes as failed")
        if alone:
            reconcile(instance, world)
        yield Runner(world, instance, reporter, verbose)
