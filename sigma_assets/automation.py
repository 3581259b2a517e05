"""When Dagster's daemon makes something by itself: one condition, and the sensor that evaluates it (off by default).

The clauses and their reasons:

- *eager*: a day's artifact follows its inputs, whenever they change;
- *made once* for everything trained, every promotion and everything of a month: when the last input comes in, and never again by itself. A late
  event marks them stale; hours of training are an operator's to request, with `monthly_refit` or `daily_refresh`. (Dagster's own
  `on_missing` looks at new partitions alone, and would never make those of a year that is over.)
- *without in_latest_time_window*: that clause looks at the calendar's last day and would ignore every day but it;
- *all blocking checks passed*: `blocking` itself only stops steps of the same run;
- *near the newest day*: a correction of last spring marks what it touches as stale and requests nothing;
- *of a day that is made*: a shard every few days, as its readers expect; a report once the days that judge it are over. (Days that
  the calendar does not have yet are not "missing" to Dagster.)
- *windows readable* in place of Dagster's clauses where a step reads fewer partitions than its edge maps, or may go on without a few of
  them: what a reader would refuse is not requested, and nothing else waits.

Source: architecture.md, rule 4.
"""

from abc import abstractmethod
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import dagster as dg

from sigma_assets.binding import ROOT_FILE
from sigma_assets.periods import WINDOWS, Span, as_date, day_key, next_month, shard_days
from sigma_assets.stages import STAGES, TRAINING, Stage
from sigma_assets.window import SPARSE, readable
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError

NEAR_DAYS: Final = 14
LOOSE: Final = WINDOWS | {"refit_cut", "first_day"}
"""Windows that read fewer partitions than their mapping covers, or may miss some."""


@dataclass(frozen=True)
class Tick:
    """The root at a tick, and the newest day of events that Dagster knows."""

    world: World
    newest: str


class _OfRoot(dg.AutomationCondition):
    """A clause decided partition by partition, by the root as it is at the tick; false where there is no root."""

    def __init__(self, root: Path, eval_horizon: int | None = None) -> None:
        self.root = root
        self.eval_horizon = eval_horizon

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """The candidates that the clause holds for."""
        candidates, stage = context.candidate_subset, STAGES[context.key.path[-1]]
        keys = candidates.expensively_compute_partition_keys()
        ingested = context.asset_graph_view.instance.get_materialized_partitions(
            dg.AssetKey("interaction_events")
        )
        true: set[str] = set()
        if keys and ingested and (self.root / ROOT_FILE).exists():
            tick = Tick(World.open(self.root, self.eval_horizon), max(ingested))
            true = {key for key in keys if self.holds(stage, key, tick)}
        return dg.AutomationResult(
            context, true_subset=candidates.compute_intersection_with_partition_keys(true)
        )

    @abstractmethod
    def holds(self, stage: Stage, key: str, tick: Tick) -> bool:
        """Whether the clause holds for a partition of a stage."""


class NearTheNewestDay(_OfRoot):
    """True for partitions that are made at all and end at most `NEAR_DAYS` behind the newest day of events (a report: twice that)."""

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return f"near_the_newest_day({NEAR_DAYS})"

    def holds(self, stage: Stage, key: str, tick: Tick) -> bool:
        """Whether a pipeline that stands at the newest day still works on the partition."""
        newest, span = tick.newest, tick.world.span
        return _is_near(key, newest, stage) and _is_made(as_date(key), as_date(newest), stage, span)


class WindowsReadable(_OfRoot):
    """True for partitions whose windows `window.readable` would hand over."""

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "windows_readable"

    def holds(self, stage: Stage, key: str, tick: Tick) -> bool:
        """Whether none of the partition's windows would be refused."""
        try:
            for read in stage.reads.values():
                if read.window in LOOSE:
                    readable(tick.world, read, key)
        except ArtifactError:
            return False
        return True


def _is_near(key: str, newest: str, stage: Stage) -> bool:
    """Whether a partition has begun by `newest`, and ends little before it."""
    slack = NEAR_DAYS * (2 if stage.name == "eval_report" else 1)
    last = as_date(key) if stage.cadence == "day" else next_month(as_date(key)) - timedelta(days=1)
    return key <= newest and day_key(last + timedelta(days=slack)) >= newest


def _is_made(day: date, newest: date, stage: Stage, span: Span) -> bool:
    """Whether there is to be a partition of the day by `newest`: shards have a stride, a report waits for the days it is judged on."""
    if stage.name in SPARSE:
        return bool(shard_days(day, day, span))
    return stage.name != "eval_report" or day + timedelta(days=span.eval_horizon) <= newest


def condition_of(stage: Stage, root: Path, eval_horizon: int | None = None) -> dg.AutomationCondition | None:
    """The stage's condition; sources have none, they are ingested, nor has what only a person asks for."""
    if stage.group == "sources" or stage.on_demand:
        return None
    near, windows = NearTheNewestDay(root, eval_horizon), WindowsReadable(root, eval_horizon)
    checked = dg.AutomationCondition.all_deps_blocking_checks_passed()
    absent = dg.AutomationCondition.any_deps_missing()
    if loose := {read.asset for read in stage.reads.values() if read.window in LOOSE}:
        checked = checked.ignore(dg.AssetSelection.assets(*loose))
        absent = absent.ignore(dg.AssetSelection.assets(*loose))
    if stage.cadence == "month" or stage.pool == TRAINING or stage.group == "promotion":
        ready = dg.AutomationCondition.missing() & near & ~absent & checked & windows
        # where conditions begin anew (a root that comes to life, another version), everything is newly true, at work or not
        return (ready.newly_true() & ~dg.AutomationCondition.in_progress()).with_label("made_once")
    eager = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    return eager.replace("any_deps_missing", absent) & checked & near & windows


def sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of all assets; stopped until someone turns it on."""
    return dg.AutomationConditionSensorDefinition(
        "make_what_is_ready",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.STOPPED,
        use_user_code_server=True,  # the condition is ours, the daemon does not know it
    )
