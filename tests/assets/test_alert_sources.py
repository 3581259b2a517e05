"""From a check or a dead run to one alert, by the command line's way and by the sensors'."""

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sigma_assets import alert_sources
from sigma_assets.alert_sensors import alert_sensors
from sigma_assets.alert_sources import after_ingestion, after_run
from sigma_assets.alerts import AlertLog
from sigma_assets.instance import open_instance
from sigma_assets.planner import Step
from sigma_assets.runner import Runner, StepError
from tests.assets.roots import Quiet, small_world, with_broken_day
from tests.toy_world import small_source

DAY = "2024-10-20"


def run_with(instance: dg.DagsterInstance, *, passed: bool, warn: bool = False, crash: bool = False) -> Any:
    """A finished run of `item_catalog` whose check says so."""

    @dg.asset(name="item_catalog", check_specs=[dg.AssetCheckSpec("contract", asset="item_catalog")])
    def catalog() -> Any:
        if crash:
            raise ValueError("disk full") from OSError("no space left on device")
        outcome = {"id": "item_catalog.title", "details": {"examples": [{"item_id": "i1"}]}}
        yield dg.Output(1)
        yield dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
            description="3 of 80 rows break it",
            metadata={"failed": dg.MetadataValue.json([] if passed else [outcome])},
        )

    return dg.materialize([catalog], instance=instance, raise_on_error=False)


def test_a_failed_check_is_one_alert_that_says_all_and_ends_when_it_passes(tmp_path: Path) -> None:
    log = AlertLog(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        first = run_with(instance, passed=False)
        assert after_run(tmp_path, instance, first.run_id) == 1
        assert after_run(tmp_path, instance, run_with(instance, passed=False).run_id) == 0, "told already"
        (alert,) = log.alerts()
        assert (alert.severity, alert.asset, alert.check) == ("ERROR", "item_catalog", "contract")
        assert alert.what == "3 of 80 rows break it"
        assert alert.examples == ('item_catalog.title: {"item_id": "i1"}',)
        assert alert.link.endswith(f"/runs/{first.run_id}")
        assert alert.owner.startswith("team:")
        assert "item_catalog.yaml" in alert.to_do
        assert after_run(tmp_path, instance, run_with(instance, passed=True).run_id) == 0
        assert log.open_keys() == []
        assert after_run(tmp_path, instance, run_with(instance, passed=False).run_id) == 1, "a new one"


def test_a_warning_travels_too(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        after_run(tmp_path, instance, run_with(instance, passed=False, warn=True).run_id)
    (alert,) = AlertLog(tmp_path).alerts()
    assert (alert.severity, alert.kind) == ("WARN", "check_warning")


def test_a_crash_is_one_alert_with_its_innermost_cause(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert after_run(tmp_path, instance, run_with(instance, passed=True, crash=True).run_id) == 1
    (alert,) = AlertLog(tmp_path).alerts()
    assert alert.kind == "run_failed"
    assert "no space left on device" in alert.what


def test_a_crash_after_a_check_that_stops_nothing_is_told_too(tmp_path: Path) -> None:
    specs = [
        dg.AssetCheckSpec("contract", asset="interaction_events", blocking=True),
        dg.AssetCheckSpec("drift", asset="interaction_events"),
    ]

    @dg.asset(name="interaction_events", check_specs=specs)
    def events(context: dg.AssetExecutionContext) -> Any:
        wrong = context.run.tags["wrong"]
        yield dg.Output(1)
        for spec in specs:
            yield dg.AssetCheckResult(passed=spec.name != wrong, check_name=spec.name)

    @dg.asset(name="item_catalog", deps=[events])
    def catalog() -> None:
        raise OSError("no space left on device")

    def told(wrong: str, root: Path) -> list[str]:
        with dg.DagsterInstance.ephemeral() as instance:
            run = dg.materialize(
                [events, catalog], instance=instance, raise_on_error=False, tags={"wrong": wrong}
            )
            after_run(root, instance, run.run_id)
        return [alert.kind for alert in AlertLog(root).alerts()]

    assert told("drift", tmp_path / "drift") == ["check_failed", "run_failed"]
    assert told("contract", tmp_path / "contract") == ["check_failed"], "what ended the run is told once"


def test_nothing_new_is_tried_again_at_most_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    monkeypatch.setattr(alert_sources, "deliver", tried.append)
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(3):
            after_run(tmp_path, instance, run_with(instance, passed=True).run_id)
            after_ingestion(tmp_path, "item_catalog", {})
        assert len(tried) == 1
        after_run(tmp_path, instance, run_with(instance, passed=False).run_id)
        assert len(tried) == 2, "news goes out at once"
        monkeypatch.setattr(alert_sources, "RETRY_SECONDS", 0.0)
        after_run(tmp_path, instance, run_with(instance, passed=False).run_id)
        assert len(tried) == 3


def test_the_sensors_raise_the_same_alerts(tmp_path: Path) -> None:
    on_failure, on_success, again = alert_sensors(tmp_path)
    assert {one.default_status for one in (on_failure, on_success, again)} == {dg.DefaultSensorStatus.RUNNING}
    with dg.DagsterInstance.ephemeral() as instance:
        good = run_with(instance, passed=False, warn=True)
        run = instance.get_run_by_id(good.run_id)
        assert run is not None
        on_success(
            dg.build_run_status_sensor_context(
                "alert_on_warnings", good.get_run_success_event(), instance, run
            )
        )
        assert [alert.kind for alert in AlertLog(tmp_path).alerts()] == ["check_warning"]
        dead = run_with(instance, passed=True, crash=True)
        run = instance.get_run_by_id(dead.run_id)
        assert run is not None
        (event,) = [
            e.dagster_event
            for e in instance.all_logs(dead.run_id)
            if e.dagster_event and e.dagster_event.event_type_value == "PIPELINE_FAILURE"
        ]
        context = dg.build_run_status_sensor_context("alert_on_failed_run", event, instance, run)
        on_failure(context.for_run_failure())
        assert [alert.kind for alert in AlertLog(tmp_path).alerts()] == ["check_warning", "run_failed"]
        assert "nothing waits" in str(again.evaluate_tick(dg.build_sensor_context(instance)).skip_message)


def test_the_command_line_raises_them_itself_even_with_a_wrong_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIGMA_ALERT_SINKS", "pager")
    source = with_broken_day(small_source(num_users=20, num_items=40, days=45), date(2024, 9, 20))
    world = small_world(tmp_path, source)
    with open_instance(world.root) as instance:
        runner = Runner(world, instance, Quiet())
        runner.run([Step("interaction_events", "2024-09-20"), Step("interaction_events", "2024-09-21")])
        with pytest.raises(StepError):
            runner.run([Step("item_embeddings", DAY)])
    alerts = {(alert.kind, alert.asset, alert.partition) for alert in AlertLog(world.root).alerts()}
    assert ("check_failed", "interaction_events", "2024-09-20") in alerts
    assert ("run_failed", "item_embeddings", DAY) in alerts
    assert "kept and not sent" in caplog.text
    assert "pager" in caplog.text


def test_an_alert_that_fails_never_replaces_the_error_it_was_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Path) -> int:
        raise TypeError("the alert's own trouble")

    monkeypatch.setattr(alert_sources, "deliver", broken)
    world = small_world(tmp_path)
    with (
        open_instance(world.root) as instance,
        pytest.raises(StepError, match="input item_catalog") as failed,
    ):
        Runner(world, instance, Quiet()).run([Step("item_embeddings", DAY)])
    assert "own trouble" not in str(failed.value)
    assert after_ingestion(world.root, "item_catalog", {}) == 0
    assert caplog.text.count("the alert's own trouble") == 2
