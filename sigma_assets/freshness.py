"""When an asset is due, from its contract, as Dagster's own freshness policy; and the alert when it is late.

A contract's `freshness.hours` count from the beginning of the day or month that a partition stands for. Dagster's daemon judges
the policies; the sensor here tells what it found. A year that is over is late for ever, so the sensor begins switched on only
where the source still grows. Source: stack.md, section 2 (freshness); our choice.
"""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState

from sigma_assets.alert_sources import deliver
from sigma_assets.alerts import Alert, AlertLog
from sigma_assets.stages import STAGES, Stage
from sigma_assets.world import World
from sigma_core.contracts import Contract, contract_names, load_contract

CHECK: Final = "freshness"
LIVE_DAYS: Final = 14  # data that end longer ago than this do not grow any more
_DAY: Final = 24


def policy_of(stage: Stage, contract: Contract, stride: int = 1) -> dg.FreshnessPolicy:
    """The stage's policy. `stride`: days between two partitions of a stage that is not made every day."""
    hours = round(contract.freshness.hours)
    if stage.cadence == "day" and stride == 1:
        return _by_cron(f"0 {hours % _DAY} * * *", _DAY)
    if stage.cadence == "day":
        return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=_DAY * stride + hours % _DAY))
    return _by_cron(f"0 {hours % _DAY} {1 + hours // _DAY} * *", hours)


@cache  # Dagster walks through a year of each cron expression
def _by_cron(deadline: str, hours: int) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.cron(deadline_cron=deadline, lower_bound_delta=timedelta(hours=hours))


def is_live(world: World, today: date | None = None) -> bool:
    """Whether the root's source still grows."""
    return world.span.end >= (today or datetime.now(UTC).date()) - timedelta(days=LIVE_DAYS)


def freshness_sensor(root: Path, *, live: bool) -> dg.SensorDefinition:
    """Missed freshness becomes an alert, and ends it when the asset is made again."""

    @dg.sensor(
        name="alert_on_missed_freshness",
        target=None,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if live else dg.DefaultSensorStatus.STOPPED,
        description="Assets that are later than their contract allows become alerts. Off for data that are over.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        late = tell_late(root, context.instance)
        return dg.SkipReason(f"late: {', '.join(late)}" if late else "nothing is late")

    return watch


def tell_late(root: Path, instance: dg.DagsterInstance) -> list[str]:
    """Record and deliver what Dagster holds to be late, each once; returns the names of the late assets."""
    keys = {dg.AssetKey(name): name for name in STAGES if name in contract_names()}
    records = instance.get_freshness_state_records(list(keys))
    late = [name for key, name in keys.items() if _state(records, key) == FreshnessState.FAIL]
    log = AlertLog(root)
    told = {f"{CHECK}/{name}/" for name in keys.values()}.intersection(log.open_keys())
    # Every half minute the same assets are late: what is told already leaves no line.
    new = sum(log.raise_alert(_alert(instance, name)) for name in late if f"{CHECK}/{name}/" not in told)
    if over := sorted(told.difference(f"{CHECK}/{name}/" for name in late)):
        log.resolve(over)
    if new:
        deliver(root)
    return late


def _state(records: Any, key: dg.AssetKey) -> FreshnessState:
    return records[key].freshness_state if key in records else FreshnessState.UNKNOWN


def _alert(instance: dg.DagsterInstance, name: str) -> Alert:
    contract, event = load_contract(name), instance.get_latest_materialization_event(dg.AssetKey(name))
    made = datetime.fromtimestamp(event.timestamp, UTC) if event else None
    newest = f"{made:%Y-%m-%d %H:%M} UTC" if made else "never"
    return Alert(
        kind="freshness_missed",
        what=f"{name} is due {contract.freshness.text} (within {contract.freshness.hours:.0f} h); it was last made {newest}",
        severity="ERROR",
        asset=name,
        partition="",
        check=CHECK,
        to_do=f"See why the job of {name} did not run or did not finish (Runs, Schedules), then launch it for the day.",
        owner=contract.owner,
    )
