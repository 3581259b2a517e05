"""A changed catalog: what runs, what is encoded, what stays; and staleness in our eyes and in Dagster's."""

import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from sigma_assets.catalog_update import CATALOG_UPDATE, CatalogUpdate, catalog_update, export_catalog
from sigma_assets.commands import runner_of
from sigma_assets.definitions import build_definitions
from sigma_assets.instance import open_instance
from sigma_assets.planner import PlanError, Step
from sigma_assets.runner import StepError
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.sources import SourceError
from sigma_core.serving.item_index import ItemIndex
from sigma_core.serving.user_to_item import UserToItemIndex
from sigma_core.tokenization.semantic_ids import SemanticIdMap
from tests.assets.roots import Quiet
from tests.e2e.slice import DAY, digests

pytestmark = pytest.mark.e2e
D = DAY.isoformat()


def semantic_ids(world: World) -> dict[str, list[int]]:
    frame = world.store.read(SemanticIdMap, "semantic_id_map", D).frame
    return dict(frame.select(c.ITEM_ID, c.CODES).iter_rows())


def stale(world: World) -> set[str]:
    """Every partition on disk that would be made again."""
    return {
        str(Step(name, key))
        for name, stage in STAGES.items()
        for key in world.store.partitions(name)
        if world.why_stale(stage, key)
    }


def stale_in_dagster(root: Path) -> set[str]:
    graph, store = build_definitions(root=root).resolve_asset_graph(), World.open(root).store
    with open_instance(root) as instance:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return {
            str(Step(name, key))
            for name in STAGES
            for key in store.partitions(name)[-3:]
            if resolver.get_status(dg.AssetKey(name), key) != StaleStatus.FRESH
        }


def update(root: Path, items: pl.DataFrame, folder: Path) -> tuple[World, CatalogUpdate]:
    path = folder / "new.csv"
    items.write_csv(path)
    return catalog_update(root, DAY, path, Quiet())


def test_an_update_runs_five_steps_encodes_new_words_alone_and_moves_no_semantic_id(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    world = World.open(root)
    before, ids_before = digests(root), semantic_ids(world)
    export_catalog(root, DAY, tmp_path / "now.parquet")
    items = pl.read_parquet(tmp_path / "now.parquet")
    here = world.store.read(ItemCatalog, "item_catalog", D).frame[c.ITEM_ID].to_list()
    gone, renamed = here[3], here[5]
    new = items.filter(pl.col(c.ITEM_ID) == here[0]).with_columns(
        pl.lit("item999").alias(c.ITEM_ID), pl.lit("oat milk").alias(c.ITEM_TYPE)
    )
    is_renamed = pl.col(c.ITEM_ID) == renamed
    changed = items.filter(pl.col(c.ITEM_ID) != gone).with_columns(
        pl.when(is_renamed).then(pl.lit("renamed thing")).otherwise(c.ITEM_TYPE).alias(c.ITEM_TYPE)
    )
    world, done = update(root, pl.concat([changed, new]), tmp_path)

    assert [one.step.asset for one in done.done if not one.is_fresh] == list(CATALOG_UPDATE)
    assert done.texts_encoded == 2
    assert done.diff is not None
    assert done.diff.items == {
        "new": ["item999"],
        "relisted": [],
        "renamed": [renamed],
        "changed": [],
        "delisted": [gone],
        "dropped": [],
    }
    ids = semantic_ids(world)
    assert {i: ids[i] for i in ids if i in ids_before} == {i: s for i, s in ids_before.items() if i != gone}
    assert gone not in world.store.read(ItemIndex, "item_index", D).item_ids
    assert gone not in set(world.store.read(UserToItemIndex, "user_to_item_index", D).frame[c.ITEM_ID])
    assert {key.partition("/")[0] for key, d in digests(root).items() if before[key] != d} == set(
        CATALOG_UPDATE
    )
    assert stale(world) == set()
    assert stale_in_dagster(root) == set()
    with runner_of(world, Quiet(), verbose=False) as runner:
        shown = runner.metadata(Step("item_catalog", D))
        assert "| delisted | 1 |" in shown["changes"]
        assert runner.metadata(Step("semantic_id_map", D))["semantic_ids_moved"] == 0

    again = update(root, pl.concat([changed, new]), tmp_path)[1]  # the same content: nothing runs
    assert not [one for one in again.done if not one.is_fresh]

    world, back = update(root, pl.concat([items, new]), tmp_path)  # both taken back
    assert back.diff is not None
    assert (back.diff.items["relisted"], back.diff.items["renamed"]) == ([gone], [renamed])
    assert back.texts_encoded == 0  # every word was read before
    assert semantic_ids(world)[gone] == ids_before[gone]
    assert stale(world) == set()

    kept = digests(root)
    with pytest.raises(SourceError, match=r"leaves out 80 of the 81 items.*--max-delisted"):
        update(root, items.head(1), tmp_path)

    def broken(*_: object) -> None:
        raise ValueError("the catalog could not be made")

    monkeypatch.setattr("sigma_assets.assets.sources.changes_of", broken)
    with pytest.raises(StepError, match="could not be made"):
        update(root, items, tmp_path)
    assert digests(root) == kept
    assert stale(World.open(root)) == set(), "a refused catalog leaves the old one in place"


def test_an_update_of_a_day_without_a_checkpoint_says_what_to_do(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="sigma materialize --as-of 2024-10-20"):
        catalog_update(made[0], DAY.replace(day=20), None, Quiet())


def test_without_a_file_the_items_of_the_source_are_read_again(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    done = catalog_update(root, DAY, None, Quiet())[1]
    assert not [one for one in done.done if not one.is_fresh]
    assert World.open(root).binding.masters == {}


def test_equal_content_makes_nothing_stale_and_changed_content_exactly_its_readers(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    """By our reckoning and by Dagster's own."""
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    with runner_of(World.open(root), Quiet(), verbose=False) as runner:
        runner._execute([Step("item_catalog", D)], {})
    assert stale_in_dagster(root) == stale(World.open(root)) == set()

    export_catalog(root, DAY, tmp_path / "now.parquet")
    items = pl.read_parquet(tmp_path / "now.parquet")
    new = items.head(1).with_columns(
        pl.lit("item998").alias(c.ITEM_ID), pl.lit("oat drink").alias(c.ITEM_TYPE)
    )
    pl.concat([items, new]).write_parquet(tmp_path / "new.parquet")
    for last in (1, 2, 3):
        world, _ = catalog_update(root, DAY, tmp_path / "new.parquet", Quiet(), steps=CATALOG_UPDATE[:last])
        changed = {(asset, D) for asset in CATALOG_UPDATE[:last]}
        readers = {
            str(Step(name, key))
            for name, stage in STAGES.items()
            if name not in CATALOG_UPDATE[:last]
            for key in world.store.partitions(name)
            if changed & set(world.inputs(stage, key))
        }
        assert stale(world) == stale_in_dagster(root) == readers


def test_a_late_event_reruns_its_day_and_what_reads_it(
    made: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    text = (root / "root.json").read_text().replace(str(data), str(folder))
    (root / "root.json").write_text(text)
    events = pl.read_parquet(folder / "events.parquet")
    late = events.filter(pl.col(c.EVENT_TIME).dt.date() == DAY).head(1)
    first = pl.concat([late.with_columns(pl.col(c.EVENT_TIME).dt.offset_by("1s")), events])
    first.write_parquet(folder / "events.parquet")  # in front: every other row of the file moves

    from sigma_assets.binding import Request, bind

    world = World(root, bind(root, Request())[0])
    assert stale(world) == {f"interaction_events[{D}]"}
    with runner_of(world, Quiet(), verbose=False) as runner:
        runner.run([Step("interaction_events", D)])
    touched = {
        str(Step(name, key))
        for name, stage in STAGES.items()
        for key in world.store.partitions(name)
        if ("interaction_events", D) in world.inputs(stage, key)
    }
    assert stale(world) == touched
    assert f"item_catalog[{D}]" in touched
    assert not [one for one in touched if one.startswith(("sigma_base", "lora_checkpoint", "codebooks"))]
    # Dagster's API sees the rollup of the month too where ours does; both name what read the day.
    assert touched <= stale_in_dagster(root) | {t for t in touched if t.startswith("sft_shards")}


def test_a_new_code_version_makes_that_asset_stale_and_nothing_else(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = made[0]
    changed = replace(STAGES["semantic_id_map"], version="next")
    monkeypatch.setitem(STAGES, "semantic_id_map", changed)
    assert stale(World.open(root)) == {f"semantic_id_map[{D}]"}
    assert stale_in_dagster(root) == {f"semantic_id_map[{D}]"}
