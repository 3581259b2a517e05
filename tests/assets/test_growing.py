"""A source that grew while the UI is open: bound, and its new days asked for once Dagster knows them."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from sigma_assets.alerts import AlertLog
from sigma_assets.binding import read_binding
from sigma_assets.definitions import build_definitions
from sigma_assets.growing import EVENTS, FOLLOW, Cursor, look
from sigma_core import columns as c
from tests.assets.roots import small_world
from tests.assets.test_promoting import adapter
from tests.toy_world import SMALL_START, FrameSource, small_source, write_tabular

LAST = SMALL_START + timedelta(days=44)
NEXT = [str(LAST + timedelta(days=n)) for n in (1, 2)]


NO_CURSOR = Cursor()


def source_until(days: int) -> FrameSource:
    """The first days of one and the same source."""
    source = small_source(num_users=20, num_items=40, days=50)
    source.raw = source.raw.filter(pl.col(c.EVENT_TIME).dt.date() < SMALL_START + timedelta(days=days))
    return source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose source has 45 days, and whose first day is ingested."""
    world = small_world(tmp_path, source_until(45))
    assert world.span.end == LAST
    world.store.write(EVENTS, str(SMALL_START), adapter(0))
    return world.root


def looks(root: Path, loaded: int, cursor: Cursor = NO_CURSOR) -> tuple[list[str], str, Cursor]:
    """Two looks between which nothing changes, of a Dagster that knows so many days more than the root did."""
    runs, _, cursor = look(root, LAST + timedelta(days=loaded), cursor)
    assert not runs, "not before the files stood still"
    runs, why, cursor = look(root, LAST + timedelta(days=loaded), cursor)
    return [str(run.partition_key) for run in runs], why, cursor


def test_new_days_are_bound_and_asked_for_once_dagster_knows_them(root: Path, tmp_path: Path) -> None:
    asked, why, cursor = looks(root, 0)
    assert (asked, why[:11]) == ([], "nothing new")
    write_tabular(source_until(47), tmp_path / "data")
    asked, why, cursor = looks(root, 0, cursor)
    assert not asked
    assert f"now reaches {NEXT[1]}, Dagster knows the days up to {LAST}" in why
    assert read_binding(root).end == LAST + timedelta(days=2)
    runs, _, cursor = look(root, LAST + timedelta(days=2), cursor)
    assert [run.partition_key for run in runs] == NEXT
    runs, why, _ = look(root, LAST + timedelta(days=2), cursor)
    assert (runs, why[:11]) == ([], "nothing new")


def test_a_corrected_day_is_asked_for_if_it_was_ingested(root: Path, tmp_path: Path) -> None:
    _, _, cursor = looks(root, 0)
    source = source_until(45)
    day = pl.col(c.EVENT_TIME).dt.date()
    twice = day.is_in([SMALL_START, SMALL_START + timedelta(days=1)])
    source.raw = source.raw.with_columns(pl.when(twice).then(2.0).otherwise(c.QUANTITY).alias(c.QUANTITY))
    write_tabular(source, tmp_path / "data")
    asked, _, _ = looks(root, 0, cursor)
    assert asked == [str(SMALL_START)]


def test_a_source_that_lost_days_is_not_bound(root: Path, tmp_path: Path) -> None:
    write_tabular(source_until(40), tmp_path / "data")
    asked, why, cursor = looks(root, 0)
    assert not asked
    assert "Put the missing days back" in why
    assert read_binding(root).end == LAST
    (alert,) = AlertLog(root).alerts()
    assert alert.kind == "file_refused"
    write_tabular(source_until(46), tmp_path / "data")
    assert looks(root, 1, cursor)[0] == NEXT[:1]


def test_the_sensor_is_there_and_off_and_its_runs_are_of_known_days(root: Path, tmp_path: Path) -> None:
    write_tabular(source_until(46), tmp_path / "data")
    _, _, cursor = looks(root, 0)
    repository = build_definitions(root=root).get_repository_def()  # loaded again, from the root as it is now
    sensor = repository.get_sensor_def(FOLLOW)
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, cursor=cursor.text(), repository_def=repository)
        (run,) = sensor.evaluate_tick(context).run_requests or []
    assert run.partition_key == NEXT[0]
