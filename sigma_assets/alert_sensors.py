"""Sensors that turn runs of Dagster's daemon into alerts; running by default, because an alert that is off helps nobody.

`sigma materialize` calls `alert_sources.after_run` itself; an alert raised by both is told once. Source: stack.md, section 2.
"""

from pathlib import Path
from typing import Any, Final

import dagster as dg

from sigma_assets.alert_sources import after_run, deliver
from sigma_assets.alerts import LOG

EVERY_SECONDS: Final = 10  # an alert is due within 30 s of its check


def alert_sensors(root: Path) -> list[Any]:
    """Failed runs, succeeded runs (their checks may warn), and the delivery of what a sink did not take."""

    @dg.run_failure_sensor(
        name="alert_on_failed_run",
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Failed checks and failed runs become alerts.",
    )
    def on_failure(context: dg.RunFailureSensorContext) -> None:
        after_run(root, context.instance, context.dagster_run.run_id)

    @dg.run_status_sensor(
        name="alert_on_warnings",
        run_status=dg.DagsterRunStatus.SUCCESS,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Warning checks of runs that succeeded become alerts; passed ones end theirs.",
    )
    def on_success(context: dg.RunStatusSensorContext) -> None:
        after_run(root, context.instance, context.dagster_run.run_id)

    @dg.sensor(
        name="deliver_alerts",
        target=None,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends alerts that a sink did not take when they were raised.",
    )
    def again() -> dg.SkipReason:
        left = deliver(root) if (root / LOG).exists() else 0
        return dg.SkipReason(f"{left} alerts wait for a sink" if left else "nothing waits")

    return [on_failure, on_success, again]
