"""What `sigma prune` takes away, and that no other day would have read it."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from sigma_assets.locking import LockedError, root_lock
from sigma_assets.prune import PRUNED, prune
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import write_json
from tests.assets.roots import small_world

DAYS = [(date(2024, 9, 25) + timedelta(days=n)).isoformat() for n in range(40)]  # to 3 November
KEPT = DAYS[-29:]  # from 6 October: 28 days before the newest, and that
FILES = ("manifest.json", "table.parquet")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A root in which every daily asset has a file of a million bytes for each day."""
    world = small_world(tmp_path)
    for asset in (name for name, stage in STAGES.items() if stage.cadence == "day"):
        for day in DAYS:
            folder = world.store.path(asset, day)
            folder.mkdir(parents=True)
            write_json(folder / "manifest.json", {})
            with (folder / "table.parquet").open("wb") as file:
                file.truncate(1_000_000)
    return world


def test_no_day_reads_what_is_taken_away_of_another() -> None:
    readers = [(r.window, s.cadence) for s in STAGES.values() for r in s.reads.values() if r.asset in PRUNED]
    assert set(readers) == {("same_day", "day"), ("first_day", "month")}
    assert not {
        "interaction_events",
        "item_catalog",
        "sft_shards",
        "lora_checkpoint",
        "promoted_model",
    } & set(PRUNED)


def test_old_days_lose_what_only_they_needed(world: World) -> None:
    lines: list[str] = []
    before = {path for path in world.root.rglob("*") if path.is_file()}
    prune(world.root, 28, lines.append, dry_run=True)
    assert {path for path in world.root.rglob("*") if path.is_file()} == before, "a dry run changes nothing"
    assert (
        lines[-1] == "32.0 MB in 32 partitions"
    )  # 11 days of three assets, without the vectors of 1 October
    assert "user_to_item_index   2024-09-25 .. 2024-10-05     11 days       11.0 MB" in lines
    prune(world.root, 28, lines.append, dry_run=False)
    for asset in (name for name, stage in STAGES.items() if stage.cadence == "day"):
        extra = ["2024-10-01"] if asset == "item_embeddings" else []
        assert world.store.partitions(asset) == (extra + KEPT if asset in PRUNED else DAYS), asset
    assert list(world.store.sweep()) == []
    assert prune(world.root, 28, lines.append, dry_run=False) == []
    stage = STAGES["user_to_item_index"]
    assert world.why_stale(stage, DAYS[0]) == "missing"


def test_young_days_and_a_root_at_work_are_left_alone(world: World) -> None:
    with pytest.raises(ValueError, match="at least 28, arrived 27"):
        prune(world.root, 27, print, dry_run=False)
    with root_lock(world.root, "materialize"):
        with pytest.raises(LockedError, match="sigma materialize"):
            prune(world.root, 28, print, dry_run=False)
        assert len(prune(world.root, 28, print, dry_run=True)) == 32


@pytest.mark.parametrize("killed_at", ["rename", "unlink", "rmtree"])
def test_a_stopped_removal_leaves_all_or_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree" if killed_at == "rmtree" else f"pathlib.Path.{killed_at}", killed)
        with pytest.raises(KeyboardInterrupt):
            world.store.remove("item_index", DAYS[0])
    list(world.store.sweep())
    left = world.store.path("item_index", DAYS[0])
    assert sorted(path.name for path in left.glob("*")) == ([] if killed_at == "rmtree" else list(FILES))
    assert not list(world.root.glob("*/.*.tmp"))
