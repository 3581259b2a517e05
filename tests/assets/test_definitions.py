import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from sigma_assets.automation import NEAR_DAYS, condition_of
from sigma_assets.column_metadata import column_lineage
from sigma_assets.definitions import build_definitions, defs
from sigma_assets.stages import STAGES
from tests.assets.roots import small_world
from tests.assets.test_promoting import adapter

LOAD = """
import sys
from sigma_assets.definitions import build_definitions
build_definitions().resolve_asset_graph()
heavy = {"torch", "transformers", "great_expectations", "wandb", "peft", "faiss", "implicit", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""


def test_loading_imports_no_model_library(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        capture_output=True,
        text=True,
        check=True,
        env={"SIGMA_ROOT": str(tmp_path), "PYTHONPATH": "."},
    ).stdout
    assert out.strip() == "[]"


def test_definitions_load_for_a_root_and_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world(tmp_path)
    dg.Definitions.validate_loadable(build_definitions(root=world.root))
    graph = build_definitions(root=world.root).resolve_asset_graph()
    assert {key.path[-1] for key in graph.get_all_asset_keys()} == set(STAGES)
    partitions = graph.get(dg.AssetKey("item_catalog")).partitions_def
    assert partitions is not None
    assert partitions.get_partition_keys()[0] == "2024-09-09"
    monkeypatch.setenv("SIGMA_ROOT", str(tmp_path / "nothing"))
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)


def test_every_asset_says_who_owns_it_what_it_is_and_which_check_blocks_it(tmp_path: Path) -> None:
    graph = build_definitions(root=tmp_path).resolve_asset_graph()
    for name, stage in STAGES.items():
        node = graph.get(dg.AssetKey(name))
        assert node.owners
        assert node.group_name == stage.group
        assert len(node.description or "") > 20
        assert graph.get(dg.AssetCheckKey(dg.AssetKey(name), "contract")).blocking


def test_columns_are_told_with_their_meaning_and_origin(tmp_path: Path) -> None:
    graph = build_definitions(root=tmp_path).resolve_asset_graph()
    schema = graph.get(dg.AssetKey("item_catalog")).metadata["dagster/column_schema"]
    columns = {column.name: column for column in schema.columns}
    assert columns["item_id"].constraints.unique
    assert all(column.type and len(column.description) > 5 for column in columns.values())
    lineage = column_lineage("item_catalog")["dagster/column_lineage"]
    origins = {dep.asset_key.path[-1] for dep in lineage.deps_by_column["item_id"]}
    assert origins == {"interaction_history", "interaction_events"}
    assert column_lineage("interaction_events") == {}


@pytest.mark.parametrize(("horizon", "days"), [(None, 7), (3, 3)])
def test_a_report_reads_the_days_of_its_horizon(tmp_path: Path, horizon: int | None, days: int) -> None:
    graph = build_definitions(root=small_world(tmp_path).root, eval_horizon=horizon).resolve_asset_graph()
    mapping = graph.get_partition_mapping(dg.AssetKey("eval_report"), dg.AssetKey("interaction_events"))
    assert isinstance(mapping, dg.TimeWindowPartitionMapping)
    assert mapping.end_offset == days


def requested(
    root: Path, instance: dg.DagsterInstance, cursor: object = None
) -> tuple[set[tuple[str, str]], object]:
    result = dg.evaluate_automation_conditions(
        defs=build_definitions(root=root),
        instance=instance,
        cursor=cursor,  # type: ignore[arg-type]
    )
    names = [name for name, stage in STAGES.items() if condition_of(stage, root)]
    asked = {(n, str(k)) for n in names for k in result.get_requested_partitions(dg.AssetKey(n)) or ()}
    return asked, result.cursor


def report(
    instance: dg.DagsterInstance, asset: str, key: str, version: str = "1", *, passed: bool = True
) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset, partition=key, tags={"dagster/data_version": version})
    )
    from sigma_assets.instance import report_checks

    result = dg.AssetCheckResult(passed=passed, asset_key=asset, check_name="contract")
    report_checks(instance, asset, {key: [result]}, blocking=("contract",))


def test_a_new_catalog_near_the_newest_day_is_followed_up_and_an_old_one_is_not(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with dg.instance_for_test() as instance:
        for key in ("2024-09-20", "2024-10-20"):
            report(instance, "interaction_events", key)
        for month in ("2024-09-01", "2024-10-01"):
            report(instance, "grounded_encoder", month)
        _, cursor = requested(world.root, instance)
        for key in ("2024-09-20", "2024-10-20"):
            report(instance, "item_catalog", key)
        asked, cursor = requested(world.root, instance, cursor)
        assert asked == {("item_embeddings", "2024-10-20")}


def test_a_catalog_that_failed_its_check_is_not_followed_up(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with dg.instance_for_test() as instance:
        report(instance, "interaction_events", "2024-10-20")
        report(instance, "grounded_encoder", "2024-10-01")
        _, cursor = requested(world.root, instance)
        report(instance, "item_catalog", "2024-10-20", passed=False)
        assert requested(world.root, instance, cursor)[0] == set()


def test_sources_and_what_only_a_person_asks_for_are_never_automated(tmp_path: Path) -> None:
    assert NEAR_DAYS == 14
    for stage in STAGES.values():
        assert (condition_of(stage, tmp_path) is None) == (stage.group == "sources" or stage.on_demand)


def test_it_fires_once_stops_at_a_failed_check_and_resumes_after_the_fix(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    wanted = {("item_embeddings", "2024-10-20")}
    with dg.instance_for_test() as instance:
        report(instance, "interaction_events", "2024-10-20")
        report(instance, "grounded_encoder", "2024-10-01")
        _, cursor = requested(world.root, instance)
        report(instance, "item_catalog", "2024-10-20", passed=False)
        asked, cursor = requested(world.root, instance, cursor)
        assert asked == set(), "a failed check"
        report(instance, "item_catalog", "2024-10-20", "2")
        asked, cursor = requested(world.root, instance, cursor)
        assert asked == wanted, "after the fix"
        asked, cursor = requested(world.root, instance, cursor)
        assert asked == set(), "once"
        report(instance, "item_embeddings", "2024-10-20")
        asked, cursor = requested(world.root, instance, cursor)
        assert wanted.isdisjoint(asked)
        report(instance, "item_catalog", "2024-10-20", "3")
        asked, cursor = requested(world.root, instance, cursor)
        assert asked >= wanted, "changed content is followed"


def test_a_training_is_made_once_and_a_late_event_never_requests_it_again(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    inputs = {
        "item_catalog": "2024-10-19",
        **dict.fromkeys(
            ("sigma_base", "refit_item_embeddings", "item_id_embeddings", "codebooks", "grounded_encoder"),
            "2024-10-01",
        ),
    }
    with dg.instance_for_test() as instance:
        report(instance, "interaction_events", "2024-10-20")
        _, cursor = requested(world.root, instance)
        for asset, key in inputs.items():
            report(instance, asset, key)
        world.store.write("sft_shards", "2024-10-13", adapter(0))
        asked, cursor = requested(world.root, instance, cursor)
        assert ("lora_checkpoint", "2024-10-20") in asked
        report(instance, "lora_checkpoint", "2024-10-20")
        _, cursor = requested(world.root, instance, cursor)
        report(instance, "item_catalog", "2024-10-19", "late")
        asked, cursor = requested(world.root, instance, cursor)
        assert ("item_embeddings", "2024-10-19") in asked
        assert not [one for one in asked if one[0] == "lora_checkpoint"]
