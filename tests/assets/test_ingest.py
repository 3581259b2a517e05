import json
import shutil
from calendar import timegm
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from sigma_assets.binding import Request, bind
from sigma_assets.definitions import build_definitions
from sigma_assets.ingest import ingest
from sigma_assets.instance import bury_dead_runs, open_instance, reconcile, report_partitions
from sigma_assets.planner import Step, plan
from sigma_assets.runner import Runner, StepError
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError
from tests.assets.roots import Quiet, small_world, with_broken_day
from tests.toy_world import SMALL_NUM_MALFORMED, small_source

DAY = date(2024, 10, 20)
DAYS_READ = 42  # 9 September to 20 October
TARGETS = [Step("item_catalog", DAY.isoformat()), Step("user_profiles", DAY.isoformat())]


@contextmanager
def runner_of(world: World) -> Iterator[Runner]:
    with open_instance(world.root) as instance:
        yield Runner(world, instance, Quiet())


def digests(world: World) -> dict[str, str]:
    return {
        f"{asset}/{key}": world.store.manifest(asset, key)["digest"]
        for asset in STAGES
        for key in world.store.partitions(asset)
    }


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = small_world(tmp_path_factory.mktemp("ingested"))
    with runner_of(world) as runner:
        runner.run(plan(TARGETS, world.span))
    return world


def test_exactly_the_planned_days_are_there_and_nothing_vanished(ingested: World) -> None:
    assert len(ingested.store.partitions("interaction_events")) == DAYS_READ
    assert ingested.store.partitions("interaction_history") == ["2024-09-01"]
    manifests = [
        ingested.store.manifest("interaction_events", k)
        for k in ingested.store.partitions("interaction_events")
    ]
    assert sum(m["summary"]["quarantined"] for m in manifests) == SMALL_NUM_MALFORMED
    first = manifests[0]["summary"]["quarantined_by_reason"]
    assert first["bad_time"] == 1  # a row without a day is kept with the first one


def test_bulk_ingestion_and_an_assets_own_run_make_the_same(ingested: World) -> None:
    before = digests(ingested)
    job = build_definitions(root=ingested.root).resolve_implicit_global_asset_job_def()
    with open_instance(ingested.root) as instance:
        for asset, key in (
            ("interaction_events", "2024-09-09"),
            ("interaction_events", DAY.isoformat()),
            ("interaction_history", "2024-09-01"),
            ("item_catalog", DAY.isoformat()),
            ("user_profiles", DAY.isoformat()),
        ):
            manifest = dict(ingested.store.manifest(asset, key))
            job.execute_in_process(partition_key=key, asset_selection=[dg.AssetKey(asset)], instance=instance)
            again = ingested.store.manifest(asset, key)
            for part in ("digest", "lineage", "code_version", "summary"):
                assert again[part] == manifest[part], (asset, key, part)
    assert digests(ingested) == before


def test_dagster_knows_every_day_its_version_and_its_checks(ingested: World) -> None:
    with open_instance(ingested.root) as instance:
        for asset in ("interaction_events", "item_catalog"):
            known = instance.event_log_storage.get_latest_tags_by_partition(
                dg.AssetKey(asset), dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
            )
            versions = {key: tags["dagster/data_version"] for key, tags in known.items()}
            assert versions == {
                key: ingested.store.manifest(asset, key)["digest"] for key in ingested.store.partitions(asset)
            }
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("interaction_events"), "contract"), limit=200
        )
        assert {record.partition for record in history} == set(
            ingested.store.partitions("interaction_events")
        )
        assert {record.status.value for record in history} == {"SUCCEEDED"}


def test_bulk_reported_partitions_are_fresh_in_dagsters_eyes_until_an_input_changes(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with runner_of(world) as runner:
        runner.run(plan(TARGETS, world.span))
        definitions = build_definitions(root=world.root)

        def status(asset: str, key: str) -> Any:
            graph = definitions.resolve_asset_graph()
            resolver = CachingStaleStatusResolver(
                runner.instance, graph, LoadingContextForTest(runner.instance)
            )
            return resolver.get_status(dg.AssetKey(asset), key)

        assert status("item_catalog", DAY.isoformat()) == StaleStatus.FRESH
        assert status("interaction_history", "2024-09-01") == StaleStatus.FRESH
        runner.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "interaction_events", partition="2024-10-19", tags={"dagster/data_version": "late"}
            )
        )
        assert status("item_catalog", DAY.isoformat()) == StaleStatus.STALE
        assert status("interaction_history", "2024-09-01") == StaleStatus.FRESH


def test_a_day_that_breaks_its_contract_is_not_written_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = date(2024, 9, 20)
    world = small_world(tmp_path, with_broken_day(small_source(num_users=20, num_items=40, days=45), broken))
    with runner_of(world) as runner:
        runner.run(plan(TARGETS, world.span))
        assert not (world.root / "interaction_events" / broken.isoformat()).exists()
        assert "most_lines_usable" in str(world.failure("interaction_events", broken.isoformat()))
        assert any("2024-09-20" in line and "was not written" in line for line in runner.reporter.lines)  # type: ignore[attr-defined]
        history = world.store.manifest("interaction_history", "2024-09-01")
        assert f"interaction_events/{broken}" not in history["lineage"]  # one day of 22 is less than 5 %
        record = runner.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("interaction_events"), "contract"), limit=200
        )
        assert [r.partition for r in record if r.status.value == "FAILED"] == [broken.isoformat()]
    with runner_of(
        world
    ) as runner:  # and again: a refused day is tried anew, Dagster takes its second evaluation
        done = runner.run(plan(TARGETS, world.span))
        assert not [one for one in done if not one.is_fresh]


def test_a_same_day_reader_refuses_a_day_that_failed(tmp_path: Path) -> None:
    world = small_world(tmp_path, with_broken_day(small_source(num_users=20, num_items=40, days=45), DAY))
    with runner_of(world) as runner, pytest.raises(ArtifactError, match="most_lines_usable"):
        runner.run(plan(TARGETS, world.span))
    assert world.store.partitions("item_catalog") == []


def test_what_the_source_left_out_is_told_and_shown_on_both_ways(tmp_path: Path) -> None:
    """Three households buy a and b daily; one review more is of c, which nobody else has, and one of what no metadata know."""
    folder, days = tmp_path / "amazon", [date(2024, 3, 1) + timedelta(d) for d in range(5)]
    folder.mkdir()
    bought = [(u, i, day) for day in days for u in ("u", "v", "w") for i in ("a", "b")]
    bought += [("u", "c", days[0]), ("u", "nowhere", days[0])]
    lines = [
        {"user_id": u, "parent_asin": i, "timestamp": 1000 * timegm(day.timetuple())} for u, i, day in bought
    ]
    (folder / "Shop.jsonl").write_text("\n".join(map(json.dumps, lines)))
    meta = [{"parent_asin": i, "title": f"thing {i}"} for i in "abc"]
    (folder / "meta_Shop.jsonl").write_text("\n".join(map(json.dumps, meta)))
    (folder / "amazon.yaml").write_text("k_core: 2\n")
    root = tmp_path / "root"
    world = World(root, bind(root, Request(source="amazon", path=folder, profile="toy"))[0])

    step = Step("interaction_events", days[0].isoformat())
    with runner_of(world) as runner:
        runner.run([step])
        (told,) = [line for line in runner.reporter.lines if line.startswith("note: source amazon")]
        assert "1 reviews of unknown items" in told
        assert "1 reviews outside core" in told
        bulk = runner.metadata(step)["source_report"]
        assert (bulk["review_lines"], bulk["items_outside_core"], bulk["no_user"]) == (32, 1, 0)
        shutil.rmtree(world.store.path(step.asset, step.partition))
        assert not runner.run_singly([step])[-1].is_fresh
        assert runner.metadata(step)["source_report"] == bulk


def test_a_source_without_counts_says_nothing(ingested: World) -> None:
    with runner_of(ingested) as runner:
        assert "source_report" not in runner.metadata(Step("interaction_events", DAY.isoformat()))


def test_what_dagster_missed_is_reported_on_the_next_start(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with runner_of(world) as runner:
        runner.run(plan([Step("interaction_events", "2024-09-10")], world.span))
        key = dg.AssetKey("interaction_events")
        runner.instance.wipe_assets([key])
        assert reconcile(runner.instance, world) == 1
        assert runner.instance.get_materialized_partitions(key) == {"2024-09-10"}
        assert reconcile(runner.instance, world) == 0


CONTRACT = dg.AssetCheckKey(dg.AssetKey("interaction_events"), "contract")


def judged(instance: dg.DagsterInstance) -> dict[str | None, str]:
    """Day -> what Dagster holds of the contract of the version that lies there."""
    infos = instance.event_log_storage.get_asset_check_partition_info([CONTRACT])
    return {one.partition_key: one.latest_execution_status.value for one in infos if one.is_current}


def test_days_made_before_ctrl_c_are_reported_with_their_checks(tmp_path: Path) -> None:
    days = [f"2024-09-{day}" for day in (10, 11, 12, 13)]
    world = small_world(tmp_path)

    def advance(done: int, _all: int, _text: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with open_instance(world.root) as instance:
        with pytest.raises(KeyboardInterrupt):
            ingest(instance, world, "interaction_events", days, advance)
        assert instance.get_materialized_partitions(CONTRACT.asset_key) == set(days[:2])
        assert judged(instance) == dict.fromkeys(days[:2], "SUCCEEDED")


def test_what_lies_on_disk_has_passed_when_dagster_lost_its_record(tmp_path: Path) -> None:
    days = ["2024-09-10", "2024-09-11", "2024-09-12"]
    world = small_world(tmp_path)
    with runner_of(world) as runner:
        runner.run([Step("interaction_events", day) for day in days])
    shutil.rmtree(world.root / ".dagster")
    world.mark_failure("interaction_events", days[2], "a later run broke its contract")
    with open_instance(world.root) as instance:
        reconcile(instance, world)
        assert judged(instance) == dict.fromkeys(days[:2], "SUCCEEDED")
        reconcile(instance, world)
        history = instance.event_log_storage.get_asset_check_execution_history(CONTRACT, limit=10)
        assert len(history) == 2, "and it is said once"
        report_partitions(instance, world, "interaction_events", days[:1])  # killed before its checks
        assert set(judged(instance)) == {days[1]}
        reconcile(instance, world)
        assert set(judged(instance)) == set(days[:2])


def test_runs_of_killed_processes_are_buried(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with open_instance(world.root) as instance:
        job = build_definitions(root=world.root).resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        assert bury_dead_runs(instance) == [run.run_id]
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.FAILURE
        assert bury_dead_runs(instance) == []


def test_a_failing_step_is_named_in_one_line(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with (
        runner_of(world) as runner,
        pytest.raises(
            StepError, match=r"item_embeddings\[2024-10-20\].*item_catalog.*Materialize item_catalog"
        ),
    ):
        runner.run([Step("item_embeddings", "2024-10-20")])
