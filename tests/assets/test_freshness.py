"""When assets are due, and the one alert when they are late."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.definitions.freshness_evaluator import FRESHNESS_EVALUATORS_BY_POLICY_TYPE
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time
from dagster._time import get_current_timestamp

from sigma_assets.alerts import AlertLog
from sigma_assets.definitions import build_definitions
from sigma_assets.freshness import freshness_sensor, is_live, tell_late
from sigma_assets.stages import STAGES
from tests.assets.roots import small_world


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> AssetGraph:
    root = small_world(tmp_path_factory.mktemp("fresh")).root
    return build_definitions(root=root).resolve_asset_graph()


def state_of(graph: AssetGraph, instance: dg.DagsterInstance, asset: str, at: datetime) -> FreshnessState:
    """What Dagster's own daemon finds at a moment."""
    node = graph.get(dg.AssetKey(asset))
    policy = node.freshness_policy_or_from_metadata
    evaluator = FRESHNESS_EVALUATORS_BY_POLICY_TYPE[type(policy)]()
    with freeze_time(at):
        return asyncio.run(evaluator.evaluate_freshness(LoadingContextForTest(instance), node))


def made(instance: dg.DagsterInstance, asset: str, at: datetime) -> None:
    with freeze_time(at):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition="2024-10-20"))


def test_every_asset_has_a_policy_but_what_only_a_person_asks_for(graph: AssetGraph) -> None:
    for name, stage in STAGES.items():
        policy = graph.get(dg.AssetKey(name)).freshness_policy_or_from_metadata
        assert (policy is None) == stage.on_demand, name


@pytest.mark.parametrize(
    ("asset", "late_at"),
    [
        ("interaction_events", datetime(2026, 3, 11, 6, 1, tzinfo=UTC)),  # 30 h after the day began
        ("item_index", datetime(2026, 3, 11, 10, 1, tzinfo=UTC)),  # 34 h
        ("sigma_base", datetime(2026, 4, 3, 12, 1, tzinfo=UTC)),  # 60 h after the month began
    ],
)
def test_an_asset_is_late_once_its_contracts_hours_are_over(
    graph: AssetGraph, asset: str, late_at: datetime
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        day = datetime(2026, 3, 10, 5, tzinfo=UTC)
        assert state_of(graph, instance, asset, day) == FreshnessState.UNKNOWN
        made(instance, asset, day if STAGES[asset].cadence == "day" else datetime(2026, 3, 2, tzinfo=UTC))
        assert state_of(graph, instance, asset, late_at - timedelta(minutes=2)) == FreshnessState.PASS
        assert state_of(graph, instance, asset, late_at) == FreshnessState.FAIL


def say(instance: dg.DagsterInstance, asset: str, state: FreshnessState) -> None:
    """As the daemon reports a change."""
    instance._report_runless_asset_event(
        FreshnessStateChange(
            key=dg.AssetKey(asset),
            previous_state=FreshnessState.UNKNOWN,
            new_state=state,
            state_change_timestamp=get_current_timestamp(),
        )
    )


def test_missed_freshness_is_one_alert_until_the_asset_is_made(tmp_path: Path) -> None:
    log = AlertLog(tmp_path)
    with dg.instance_for_test() as instance:
        assert tell_late(tmp_path, instance) == []
        say(instance, "item_catalog", FreshnessState.FAIL)
        say(instance, "codebooks", FreshnessState.PASS)
        assert tell_late(tmp_path, instance) == ["item_catalog"]
        told = log.path.read_text()
        assert tell_late(tmp_path, instance) == ["item_catalog"]
        assert log.path.read_text() == told, "the second look leaves no line"
        (alert,) = log.alerts()
        assert (alert.kind, alert.asset, alert.owner[:5]) == ("freshness_missed", "item_catalog", "team:")
        assert "right after the day's events (within 31 h); it was last made never" in alert.what
        say(instance, "item_catalog", FreshnessState.PASS)
        assert tell_late(tmp_path, instance) == []
        assert log.open_keys() == []
        say(instance, "item_catalog", FreshnessState.FAIL)
        tell_late(tmp_path, instance)
        assert len(log.alerts()) == 2, "late again is news again"


def test_data_that_are_over_are_watched_by_nobody_unless_asked(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert not is_live(world)
    assert is_live(world, world.span.end + timedelta(days=3))
    assert not is_live(world, date(2030, 1, 1))
    with dg.instance_for_test() as instance:
        for live, status in ((True, "RUNNING"), (False, "STOPPED")):
            one = freshness_sensor(tmp_path, live=live)
            assert one.default_status.value == status
        say(instance, "item_catalog", FreshnessState.FAIL)
        tick = one.evaluate_tick(dg.build_sensor_context(instance))
        assert tick.skip_message == "late: item_catalog"
