"""A source that grew while the UI is open: bound, and its new days asked for once Dagster knows them."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from sigma_assets.alerts import AlertLog
from sigma_assets.binding import Request, bind, read_binding
from sigma_assets.definitions import build_definitions
from sigma_assets.growing import EVENTS, FOLLOW, Cursor, look, take_in
from sigma_assets.masters import remember_first
from sigma_assets.stages import STAGES
from sigma_assets.world import World
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


def ingest(root: Path, days: Iterable[str]) -> None:
    """Something in the place of those days, made from the source as it is bound now."""
    world = World.open(root)
    for day in days:
        world.store.write(EVENTS, day, adapter(0), lineage=world.lineage(STAGES[EVENTS], day))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose source has 45 days, all ingested."""
    world = small_world(tmp_path, source_until(45))
    assert world.span.end == LAST
    ingest(world.root, [str(SMALL_START + timedelta(days=n)) for n in range(45)])
    return world.root


def corrected(source: FrameSource, *days: date) -> FrameSource:
    """The source with other quantities on those days."""
    day = pl.col(c.EVENT_TIME).dt.date()
    source.raw = source.raw.with_columns(
        pl.when(day.is_in(days)).then(2.0).otherwise(c.QUANTITY).alias(c.QUANTITY)
    )
    return source


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


def test_a_corrected_day_is_asked_for_and_one_whose_run_has_not_begun_is_not_asked_for_again(
    root: Path, tmp_path: Path
) -> None:
    _, _, cursor = looks(root, 0)
    write_tabular(corrected(source_until(45), SMALL_START, LAST), tmp_path / "data")
    assert looks(root, 0, cursor)[0] == [str(SMALL_START), str(LAST)]
    _, _, cursor = look(root, LAST, cursor)
    runs, _, _ = look(root, LAST, cursor, lambda: {str(LAST)})
    assert [run.partition_key for run in runs] == [str(SMALL_START)]


@pytest.mark.parametrize("by", ["a look that was killed", "materialize"])
def test_days_that_somebody_bound_and_nobody_ingested_are_asked_for(
    root: Path, tmp_path: Path, by: str
) -> None:
    _, _, cursor = looks(root, 0)
    write_tabular(corrected(source_until(47), SMALL_START), tmp_path / "data")
    if by == "materialize":
        bind(root, Request())
        ingest(root, NEXT[:1])
    else:
        assert take_in(root) == [str(SMALL_START), *NEXT], "and its cursor is never kept"
    asked, _, _ = looks(root, 2, cursor)
    assert asked == [str(SMALL_START), *(NEXT[1:] if by == "materialize" else NEXT)]


def test_a_day_that_failed_waits_for_other_events_and_new_products_make_no_day_wait(
    root: Path, tmp_path: Path
) -> None:
    world = World.open(root)
    remember_first(root, world.binding)
    world.mark_failure(EVENTS, str(LAST), "broken")
    source = source_until(45)
    source.master = source.master.with_columns(pl.col(c.BRAND).fill_null("") + "x")
    write_tabular(source, tmp_path / "data")
    assert take_in(root) == []
    assert World.open(root).why_stale(STAGES[EVENTS], str(SMALL_START)) is not None
    write_tabular(corrected(source, LAST), tmp_path / "data")
    assert take_in(root) == [str(LAST)]
    assert take_in(root) == [str(LAST)], "still, though the correction is bound by now"


def test_rows_before_the_first_day_are_not_bound(root: Path, tmp_path: Path) -> None:
    source = source_until(45)
    early = source.raw.head(1).with_columns(pl.col(c.EVENT_TIME) - timedelta(days=40))
    source.raw = pl.concat([source.raw, early])
    write_tabular(source, tmp_path / "data")
    asked, why, _ = looks(root, 0)
    assert not asked
    assert f"now begins on {SMALL_START - timedelta(days=40)}, and began on {SMALL_START}" in why
    assert read_binding(root).start == SMALL_START
    assert AlertLog(root).alerts()


def test_a_mistyped_year_asks_for_no_day_but_the_one_its_row_is_kept_with(root: Path, tmp_path: Path) -> None:
    source = source_until(46)
    late = source.raw.head(1).with_columns(pl.col(c.EVENT_TIME).dt.offset_by("180y"))
    source.raw = pl.concat([source.raw, late])
    write_tabular(source, tmp_path / "data")
    assert looks(root, 1)[0] == [str(SMALL_START), NEXT[0]]
    assert read_binding(root).end == LAST + timedelta(days=1)
    write_tabular(source_until(46), tmp_path / "data")
    assert take_in(root) == NEXT[:1], "taking it out is no loss of days"


def test_items_that_polars_cannot_read_as_words_are_an_alert_and_no_crash(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "data" / "items.parquet"
    pl.read_parquet(file).with_columns(pl.concat_list(c.BRAND)).write_parquet(file)
    assert f"column {c.BRAND} of the items: List(String) arrived" in looks(root, 0)[1]
    assert [alert.kind for alert in AlertLog(root).alerts()] == ["file_refused"]


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
