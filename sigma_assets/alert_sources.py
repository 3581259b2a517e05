"""Where alerts come from: the checks and the end of a Dagster run, and the partitions that bulk ingestion refused.

Turns them into `Alert`s with what to do and whose it is, records them, and delivers. Nothing that goes wrong here fails a run,
or takes the place of the error that did.
Source: stack.md, section 2 (alerting); our choice.
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg

from sigma_assets.alert_sinks import AlertConfigError, sinks_of
from sigma_assets.alerts import Alert, AlertLog
from sigma_assets.checks.contract import CHECK
from sigma_assets.checks.gate import REFIT_GATE
from sigma_assets.stages import STAGES
from sigma_core.contracts import contract_names, load_contract

UI_VARIABLE: Final = "SIGMA_UI_URL"
UI_DEFAULT: Final = "http://127.0.0.1:3000"
OWNER: Final = "team:sigma"
NUM_EXAMPLES: Final = 5
RETRY_SECONDS: Final = 60.0  # between two deliveries of a process that has nothing new to tell
_tried: dict[Path, float] = {}
"""Root -> when this process last delivered there."""


def after_run(root: Path, instance: dg.DagsterInstance, run_id: str) -> int:
    """Record and deliver what a finished run has to say; returns how many new alerts that made. Never raises."""
    try:
        return _record_run(root, instance, run_id)
    except Exception as error:  # noqa: BLE001  a full disk: what was made is made, whether or not somebody can be told
        return _not_kept(f"run {run_id}", error)


def _record_run(root: Path, instance: dg.DagsterInstance, run_id: str) -> int:
    log = AlertLog(root)
    new, over = 0, []
    is_told = False  # what ended the run has its own alert: a check that kept an output from being written
    for evaluation in _evaluations(instance, run_id):
        alert = alert_of(evaluation, run_id)
        if alert is None:
            over.append(_key(evaluation))
        else:
            is_told |= alert.severity == "ERROR" and _stops(evaluation)
            new += log.raise_alert(alert)
    run = instance.get_run_by_id(run_id)
    if run is not None:
        steps = _steps_of(run)
        if run.status == dg.DagsterRunStatus.FAILURE and not is_told:
            new += sum(log.raise_alert(alert) for alert in _run_failed(instance, run, steps))
        elif run.status == dg.DagsterRunStatus.SUCCESS:
            over += [f"run_failed/{asset}/{_partition(run)}" for asset in steps]
    log.resolve(over)
    _deliver_if_due(root, new)
    return new


def after_ingestion(root: Path, asset: str, results: dict[str, Sequence[dg.AssetCheckResult]]) -> int:
    """Record and deliver what the checks of bulk-ingested partitions say; returns how many new alerts that made. Never raises."""
    try:
        return _record_ingestion(root, asset, results)
    except Exception as error:  # noqa: BLE001  as after_run
        return _not_kept(f"the ingestion of {asset}", error)


def _not_kept(of_what: str, error: Exception) -> int:
    logging.getLogger("sigma.alerts").error(
        "alerts of %s could not be kept: %s: %s", of_what, type(error).__name__, error
    )
    return 0


def _record_ingestion(root: Path, asset: str, results: dict[str, Sequence[dg.AssetCheckResult]]) -> int:
    log = AlertLog(root)
    new, over = 0, []
    for partition, found in results.items():
        for result in found:
            evaluation = _as_evaluation(asset, partition, result)
            alert = alert_of(evaluation, "")
            if alert is None:
                over.append(_key(evaluation))
            else:
                new += log.raise_alert(alert)
    log.resolve(over)
    _deliver_if_due(root, new)
    return new


def file_refused(root: Path, asset: str, partition: str, what: str) -> None:
    """Record and deliver that a file somebody dropped was not taken in."""
    to_do = "Correct the file (`sigma contracts check --table items --path FILE` says all) and drop it again."
    AlertLog(root).raise_alert(
        Alert("file_refused", what, "ERROR", asset, partition, to_do=to_do, owner=owner_of(asset))
    )
    deliver(root)


def deliver(root: Path) -> int:
    """Send what waits, to the sinks of the environment; returns what stays undelivered. Never raises for a sink."""
    try:
        return AlertLog(root).deliver(sinks_of())
    except AlertConfigError as error:
        logging.getLogger("sigma.alerts").error("alerts are kept and not sent: %s", error)
        return len(AlertLog(root).alerts())


def _deliver_if_due(root: Path, new: int) -> None:
    """`deliver` where there is news; what waits besides is tried once in `RETRY_SECONDS`, for a dead sink costs seconds a time."""
    now = time.monotonic()
    if new or now - _tried.get(root, -RETRY_SECONDS) >= RETRY_SECONDS:
        deliver(root)
        _tried[root] = time.monotonic()


def alert_of(evaluation: dg.AssetCheckEvaluation, run_id: str) -> Alert | None:
    """The alert of a check's evaluation; None when it passed."""
    if evaluation.passed:
        return None
    asset, partition = evaluation.asset_key.path[-1], evaluation.partition or ""
    is_error = evaluation.severity == dg.AssetCheckSeverity.ERROR
    return Alert(
        kind="check_failed" if is_error else "check_warning",
        what=evaluation.description or f"check {evaluation.check_name} did not pass",
        severity="ERROR" if is_error else "WARN",
        asset=asset,
        partition=partition,
        check=evaluation.check_name,
        run_id=run_id,
        link=run_link(run_id),
        examples=_examples(evaluation.metadata),
        to_do=_own_to_do(evaluation.metadata) or _to_do(asset, partition, is_error=is_error),
        owner=owner_of(asset),
    )


def owner_of(asset: str) -> str:
    """Whose the asset is, by its contract."""
    return load_contract(asset).owner if asset in contract_names() else OWNER


def run_link(run_id: str) -> str:
    """Where the run can be seen; "" without one."""
    return f"{os.environ.get(UI_VARIABLE, UI_DEFAULT).rstrip('/')}/runs/{run_id}" if run_id else ""


def _evaluations(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    events = [entry.dagster_event for entry in entries]
    return [event.asset_check_evaluation_data for event in events if event is not None]


def _as_evaluation(asset: str, partition: str, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=result.check_name == CHECK,
        partition=partition,
    )


def _stops(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Whether the check, failed, keeps the partition from being written: the contract's, and the gate of a refit."""
    return bool(evaluation.blocking) or evaluation.check_name == REFIT_GATE


def _key(evaluation: dg.AssetCheckEvaluation) -> str:
    return f"{evaluation.check_name}/{evaluation.asset_key.path[-1]}/{evaluation.partition or ''}"


def _examples(metadata: Any) -> tuple[str, ...]:
    """Failing rows of the broken expectations, a line each."""
    failed = metadata.get("failed")
    outcomes = getattr(failed, "data", None) or getattr(failed, "value", None) or []
    lines = [
        f"{outcome['id']}: {json.dumps(example, default=str)}"
        for outcome in outcomes
        for example in outcome.get("details", {}).get("examples", [])
    ]
    return tuple(lines[:NUM_EXAMPLES])


def _own_to_do(metadata: Any) -> str:
    """What the check itself says is to be done; "" where it says nothing."""
    said = metadata.get("to_do")
    return str(getattr(said, "value", said) or "")


def _to_do(asset: str, partition: str, *, is_error: bool) -> str:
    again = f"sigma materialize --as-of {partition}" if partition else "sigma materialize"
    if not is_error:
        return f"Nothing stopped. Look at the examples; where they are right, correct data_contracts/{asset}.yaml."
    if STAGES[asset].group == "sources":
        return f"Nothing was written. Correct the rows in the source (or data_contracts/{asset}.yaml), then `{again}`."
    return f"Nothing was written; readers of {asset} refuse this partition. Mend the cause, then `{again}`."


def _steps_of(run: dg.DagsterRun) -> list[str]:
    selected = sorted(key.path[-1] for key in run.asset_selection or ())
    return selected or [run.job_name]


def _partition(run: dg.DagsterRun) -> str:
    return str(run.tags.get("dagster/partition", ""))


def _run_failed(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: Iterable[str]) -> list[Alert]:
    """An alert for each asset of a run that crashed: a failed check has its own, and is not told twice."""
    return [
        Alert(
            kind="run_failed",
            what=_cause(instance, run.run_id),
            severity="ERROR",
            asset=asset,
            partition=_partition(run),
            run_id=run.run_id,
            link=run_link(run.run_id),
            to_do="Read the run's log, mend the cause and launch it again; what it replaced is still in place.",
            owner=owner_of(asset),
        )
        for asset in steps
    ]


def _cause(instance: dg.DagsterInstance, run_id: str) -> str:
    """The innermost error of the run's first failed step, in one line."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        error = entry.dagster_event.step_failure_data.error if entry.dagster_event else None
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return " ".join(error.message.split())[:500]
    return "the run's process died"
