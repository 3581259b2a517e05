"""When Dagster's daemon makes something by itself: one condition, and the sensor that evaluates it (off by default).

The clauses and their reasons:

- *eager*: a day's artifact follows its inputs, whenever they change;
- *made once* for everything trained, every promotion and everything of a month: when the last input comes in, and never again by itself. A late
  event marks them stale; hours of training are an operator's to request, with `monthly_refit` or `daily_refresh`. (Dagster's own
  `on_missing` looks at new partitions alone, and would never make those of a year that is over.)
- *without in_latest_time_window*: that clause looks at the calendar's last day and would ignore every day but it;
- *all blocking checks passed*: `blocking` itself only stops steps of the same run;
- *near the newest day*: a correction of last spring marks what it touches as stale and requests nothing;
- *shards ignored* where they are read: they are samples, and none is built on most days.

Source: architecture.md, rule 4.
"""

from datetime import timedelta
from typing import Final

import dagster as dg

from sigma_assets.periods import as_date, day_key, next_month
from sigma_assets.stages import STAGES, TRAINING, Stage

NEAR_DAYS: Final = 14
SPARSE: Final = dg.AssetSelection.assets("sft_shards")


class NearTheNewestDay(dg.AutomationCondition):
    """True for partitions that end at most `NEAR_DAYS` behind the newest day of events (a report: that many plus its horizon)."""

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return f"near_the_newest_day({NEAR_DAYS})"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """The candidates that lie near the newest day; none when there are no events."""
        candidates = context.candidate_subset
        ingested = context.asset_graph_view.instance.get_materialized_partitions(
            dg.AssetKey("interaction_events")
        )
        stage = STAGES[context.key.path[-1]]
        keys = {
            key
            for key in candidates.expensively_compute_partition_keys()
            if ingested and _is_near(key, max(ingested), stage)
        }
        return dg.AutomationResult(
            context, true_subset=candidates.compute_intersection_with_partition_keys(keys)
        )


def _is_near(key: str, newest: str, stage: Stage) -> bool:
    """Whether a partition is one that a pipeline standing at `newest` still works on."""
    slack = NEAR_DAYS * (2 if stage.name == "eval_report" else 1)
    last = as_date(key) if stage.cadence == "day" else next_month(as_date(key)) - timedelta(days=1)
    return key <= newest and day_key(last + timedelta(days=slack)) >= newest


def condition_of(stage: Stage) -> dg.AutomationCondition | None:
    """The stage's condition; sources have none, they are ingested, nor has what only a person asks for."""
    if stage.group == "sources" or stage.on_demand:
        return None
    samples = any(read.asset == "sft_shards" for read in stage.reads.values())
    checked = dg.AutomationCondition.all_deps_blocking_checks_passed()
    if samples:
        checked = checked.ignore(SPARSE)
    if stage.cadence == "month" or stage.pool == TRAINING or stage.group == "promotion":
        absent = dg.AutomationCondition.any_deps_missing()
        ready = dg.AutomationCondition.missing() & ~(absent.ignore(SPARSE) if samples else absent)
        return (ready & checked & NearTheNewestDay()).newly_true().with_label("made_once")
    eager = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    if samples:
        eager = eager.ignore(SPARSE)
    return eager & checked & NearTheNewestDay()


def sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of all assets; stopped until someone turns it on."""
    return dg.AutomationConditionSensorDefinition(
        "make_what_is_ready",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.STOPPED,
        use_user_code_server=True,  # the condition is ours, the daemon does not know it
    )
