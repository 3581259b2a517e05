"""The drift check of a root: told, never blocking, the same by bulk ingestion and by the asset's own run."""

from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl

from sigma_assets.alerts import AlertLog
from sigma_assets.binding import Request, bind
from sigma_assets.instance import open_instance
from sigma_assets.planner import Step
from sigma_assets.runner import Runner
from sigma_assets.world import World
from sigma_core import columns as c
from tests.assets.roots import Quiet, small_world
from tests.toy_world import small_source, write_tabular

STRANGE = date(2024, 9, 25)
DAYS = [f"2024-09-{day:02d}" for day in range(9, 27)]


def test_times_that_can_be_read_no_more_are_told_when_the_source_grows(tmp_path: Path) -> None:
    """One row in 200 loses its time: too few for a check of their share, and none of a day that others could be compared with."""
    source, first = small_source(num_users=30, num_items=40, days=45), Step("interaction_events", DAYS[0])
    world = small_world(tmp_path, source)
    with open_instance(world.root) as instance:
        Runner(world, instance, Quiet()).run([first])
        assert "drift" not in {one.check for one in AlertLog(world.root).alerts()}
        is_broken = pl.col(c.SOURCE_ROW) % 200 == 7
        time = pl.when(is_broken).then(None).otherwise(c.EVENT_TIME)
        source.raw = source.raw.with_columns(time.alias(c.EVENT_TIME))
        write_tabular(source, tmp_path / "data")
        grown = World(world.root, bind(world.root, Request())[0])
        Runner(grown, instance, Quiet()).run([first])
    (alert,) = [one for one in AlertLog(world.root).alerts() if one.check == "drift"]
    assert (alert.severity, alert.partition) == ("WARN", DAYS[0])
    assert "rows without a usable time" in alert.what


def test_half_the_times_unreadable_break_the_contract_of_the_first_day(tmp_path: Path) -> None:
    source = small_source(num_users=30, num_items=40, days=45)
    time = pl.when(pl.col(c.SOURCE_ROW) % 2 == 0).then(None).otherwise(c.EVENT_TIME)
    source.raw = source.raw.with_columns(time.alias(c.EVENT_TIME))
    world = small_world(tmp_path, source)
    with open_instance(world.root) as instance:
        Runner(world, instance, Quiet()).run([Step("interaction_events", day) for day in DAYS[:3]])
    assert world.store.partitions("interaction_events") == DAYS[1:3]
    assert "most_times_usable" in str(world.failure("interaction_events", DAYS[0]))
    (alert,) = [one for one in AlertLog(world.root).alerts() if one.severity == "ERROR"]
    assert "at most a tenth of the source's lines have no usable time" in alert.what


def test_a_strange_day_is_published_and_told(tmp_path: Path) -> None:
    source = small_source(num_users=30, num_items=40, days=45)
    is_strange = pl.col(c.EVENT_TIME).dt.date() == STRANGE
    source.raw = source.raw.with_columns(
        pl.when(is_strange).then(pl.col(c.PRICE) * 100).otherwise(c.PRICE).alias(c.PRICE)
    )
    world = small_world(tmp_path, source)
    with open_instance(world.root) as instance:
        runner = Runner(world, instance, Quiet())
        runner.run([Step("interaction_events", day) for day in DAYS])
        assert world.store.partitions("interaction_events") == DAYS, "no day is kept back"
        (alert,) = [one for one in AlertLog(world.root).alerts() if one.partition == STRANGE.isoformat()]
        assert (alert.check, alert.severity) == ("drift", "ERROR")
        assert "price quantile" in alert.what
        assert "Nothing stopped, 2024-09-25 counts" in alert.to_do
        key = dg.AssetCheckKey(dg.AssetKey("interaction_events"), "drift")
        history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        status = {record.partition: record.status.value for record in history}
        assert status[STRANGE.isoformat()] == "FAILED"
        assert status["2024-09-10"] == "SUCCEEDED", "one day before it is too few to compare"
        before = world.manifest("interaction_events", STRANGE.isoformat())
        assert before is not None
        world.store.path("interaction_events", STRANGE.isoformat()).rename(tmp_path / "aside")
        runner.run_singly([Step("interaction_events", STRANGE.isoformat())])
        again = world.manifest("interaction_events", STRANGE.isoformat())
        assert again is not None
        assert again["profile"] == before["profile"]
        assert len(AlertLog(world.root).alerts()) == len(
            {one.key for one in AlertLog(world.root).alerts()}
        ), "told once"
