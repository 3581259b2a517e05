"""The drop folder for catalogs: taken in whole, for days that are there, and taken back when it makes no good catalog."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from sigma_assets.alerts import AlertLog
from sigma_assets.binding import read_binding
from sigma_assets.catalog_inbox import FILE_TAG, FORMER_TAG, INBOX, MASTER_TAG, catalog_sensor, undo
from sigma_assets.catalog_update import NEEDED
from sigma_assets.definitions import build_definitions
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import DamagedError
from tests.assets.roots import small_world
from tests.assets.test_promoting import adapter
from tests.toy_world import small_source

DAY = "2024-10-20"
ITEMS = small_source(num_users=20, num_items=40, days=45).products()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root that serves one day, with an empty inbox."""
    world = small_world(tmp_path)
    for asset in NEEDED:
        world.store.write(asset, DAY, adapter(0))
    (world.root / INBOX).mkdir(parents=True)
    return world.root


def look(root: Path, cursor: str | None = None) -> tuple[list[dg.RunRequest], str, str | None]:
    with dg.DagsterInstance.ephemeral() as instance:
        repository = build_definitions(root=root).get_repository_def()
        context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
        data = catalog_sensor(root).evaluate_tick(context)
        return list(data.run_requests or []), str(data.skip_message), data.cursor


def tick(root: Path) -> tuple[list[dg.RunRequest], str]:
    """Two looks, between which nothing changes."""
    _, _, cursor = look(root)
    asked, why, _ = look(root, cursor)
    return asked, why


def test_a_dropped_catalog_becomes_the_master_of_its_day_and_a_run(root: Path) -> None:
    assert "no catalog in" in tick(root)[1]
    ITEMS.head(39).write_parquet(root / INBOX / f"{DAY}.parquet")
    (asked,), _ = tick(root)
    assert asked.partition_key == DAY
    assert list(read_binding(root).masters) == [DAY]
    assert not list((root / INBOX).glob("[!.]*")), "taken, so that it is not taken twice"
    assert World.open(root).why_stale(STAGES["interaction_events"], DAY) == "missing"


def test_a_file_is_taken_only_once_it_has_stopped_growing(root: Path) -> None:
    file = root / INBOX / f"{DAY}.csv"
    ITEMS.head(36).write_csv(file)
    asked, why, cursor = look(root)
    assert not asked
    assert "stopped changing" in why
    ITEMS.write_csv(file)
    asked, _, cursor = look(root, cursor)
    assert not asked, "it grew since the last look"
    assert read_binding(root).masters == {}
    asked, _, _ = look(root, cursor)
    assert [one.partition_key for one in asked] == [DAY]
    assert file.with_name(f".{file.name}.taken").exists()


def test_a_bad_catalog_beside_a_good_one_costs_the_good_one_nothing(root: Path) -> None:
    for name in (f"{DAY}.parquet", "tomorrow.parquet", "2030-01-01.parquet"):
        ITEMS.head(39).write_parquet(root / INBOX / name)
    (asked,), _ = tick(root)
    assert asked.partition_key == DAY
    for name in ("tomorrow.parquet", "yesterday.parquet"):
        ITEMS.head(39).write_parquet(root / INBOX / name)
    runs, why = tick(root)
    assert not runs
    assert "tomorrow" in why
    assert "yesterday" in why


def test_one_catalog_a_look_becomes_master_so_that_its_run_is_asked_for(root: Path) -> None:
    later = "2024-10-21"
    for asset in NEEDED:
        World.open(root).store.write(asset, later, adapter(0))
    for day in (DAY, later):
        ITEMS.head(39).write_parquet(root / INBOX / f"{day}.parquet")
    _, _, cursor = look(root)
    asked, _, cursor = look(root, cursor)
    assert [one.partition_key for one in asked] == [DAY]
    assert [one.partition_key for one in look(root, cursor)[0]] == [later]


def lists(root: Path, file: Path) -> None:
    ITEMS.with_columns(pl.concat_list("brand")).write_parquet(file)


def folder(root: Path, file: Path) -> None:
    file.mkdir()


def polars_fails(root: Path, file: Path) -> None:
    ITEMS.write_parquet(file)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(lists, "column brand of the items: List"), (folder, "is no file"), (polars_fails, "unexpected dtype")],
)
def test_what_cannot_be_read_is_put_aside_and_the_next_look_goes_on(
    root: Path, spoil: Callable[[Path, Path], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(root, root / INBOX / f"{DAY}.parquet")
    with monkeypatch.context() as patch:
        if spoil is polars_fails:
            patch.setattr("sigma_assets.catalog_inbox.read_catalog_file", raising_polars)
        assert said in tick(root)[1]
    assert [alert.kind for alert in AlertLog(root).alerts()] == ["file_refused"]
    ITEMS.head(39).write_csv(root / INBOX / f"{DAY}.csv")
    assert [one.partition_key for one in tick(root)[0]] == [DAY]


def raising_polars(_: Path) -> pl.DataFrame:
    raise pl.exceptions.InvalidOperationError("unexpected dtype")


def test_a_damaged_catalog_of_the_day_puts_the_file_aside_with_an_alert(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ITEMS.write_parquet(root / INBOX / f"{DAY}.parquet")

    def damaged(*_: object) -> None:
        raise DamagedError("item_catalog is cut short")

    monkeypatch.setattr("sigma_assets.catalog_inbox.former_catalog", damaged)
    assert "cut short" in tick(root)[1]
    assert [alert.kind for alert in AlertLog(root).alerts()] == ["file_refused"]


@pytest.mark.parametrize(
    ("name", "columns", "said"),
    [
        ("tomorrow.csv", ["item_id", "title"], "tomorrow"),
        (f"{DAY}.csv", ["title"], "item_id"),
        ("2024-10-21.csv", ["item_id", "title"], "2024-10-21 has no lora_checkpoint"),
        ("2030-01-01.csv", ["item_id", "title"], "2030-01-01 has no lora_checkpoint"),
    ],
)
def test_a_bad_catalog_is_put_aside_with_an_alert(
    root: Path, name: str, columns: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    ITEMS.select(columns).write_csv(root / INBOX / name)
    asked, why = tick(root)
    assert not asked
    assert said in why
    (alert,) = AlertLog(root).alerts()
    assert (alert.kind, alert.owner[:5]) == ("file_refused", "team:")
    assert "refused" in caplog.text
    assert read_binding(root).masters == {}
    assert (root / INBOX / f".{name}.refused").exists()
    assert "no catalog in" in tick(root)[1]


@dg.asset
def item_catalog() -> None:
    raise ValueError("the catalog broke its contract")


@dg.asset(deps=[item_catalog])
def item_index() -> None:
    raise ValueError("a later step")


@pytest.mark.parametrize(("failing", "is_undone"), [(item_catalog, True), (item_index, False)])
def test_a_master_that_made_no_catalog_is_taken_back(
    root: Path, failing: dg.AssetsDefinition, is_undone: bool
) -> None:
    ITEMS.head(39).write_parquet(root / INBOX / f"{DAY}.parquet")
    (asked,), _ = tick(root)
    assert (asked.tags[FILE_TAG], asked.tags[FORMER_TAG]) == (f"{DAY}.parquet", "")
    assert asked.tags[MASTER_TAG] == read_binding(root).masters[DAY]
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {**asked.tags, "dagster/partition": DAY}
        done = dg.materialize([failing], instance=instance, tags=tags, raise_on_error=False)
        assert undo(root, instance, done.dagster_run) == is_undone
        assert not undo(root, instance, done.dagster_run), "once"
    assert (read_binding(root).masters == {}) == is_undone
    assert (root / INBOX / f".{DAY}.parquet.refused").exists() == is_undone
    assert len(AlertLog(root).alerts()) == is_undone
