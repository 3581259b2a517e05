"""Jobs an operator starts, their schedules, the drop folder for catalogs, and the pool of trainings."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from sigma_assets.alerts import AlertLog
from sigma_assets.binding import read_binding
from sigma_assets.definitions import build_definitions
from sigma_assets.instance import bury_dead_runs, open_instance
from sigma_assets.jobs import INBOX, JOBS, catalog_sensor, partition_at, schedules
from sigma_assets.stages import STAGES, TRAINING
from sigma_assets.world import World
from tests.assets.roots import small_world
from tests.toy_world import small_source


def test_every_asset_is_in_a_job_an_operator_knows(tmp_path: Path) -> None:
    assert {asset for job in JOBS for asset in job.assets} == set(STAGES)
    repository = build_definitions(root=small_world(tmp_path).root).get_repository_def()
    for job in JOBS:
        made = repository.get_job(job.name)
        assert len(made.description or "") > 20
        assert {key.path[-1] for key in made.asset_layer.selected_asset_keys} == set(job.assets)
        assert {STAGES[asset].cadence for asset in job.assets} == {job.cadence}


def test_only_reading_sources_is_retried_and_trainings_have_a_time_limit(tmp_path: Path) -> None:
    assert [job.name for job in JOBS if job.retries] == ["ingest_day"]
    for job in JOBS:
        trains = any(STAGES[asset].pool == TRAINING for asset in job.assets)
        assert bool(job.max_seconds) == trains
    assert {name for name, stage in STAGES.items() if stage.pool == TRAINING} == {
        "grounded_encoder",
        "sigma_base",
        "lora_checkpoint",
        "ablation_report",
    }


def test_a_schedule_names_the_partition_of_its_day_or_says_why_none(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    jobs = {job.name: job for job in JOBS}
    night = datetime(2024, 10, 1, 4, tzinfo=UTC)
    assert partition_at(jobs["ingest_day"], night, world) == "2024-09-30"
    assert partition_at(jobs["close_month"], night, world) == "2024-09-01"
    assert partition_at(jobs["monthly_refit"], night, world) == "2024-10-01"
    assert partition_at(jobs["evaluate"], night, world) == "2024-09-23"
    assert partition_at(jobs["ingest_day"], datetime(2026, 1, 1, tzinfo=UTC), world) is None
    (daily,) = [one for one in schedules(world.root) if one.name == "daily_refresh_schedule"]
    repository = build_definitions(root=world.root).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:

        def at(moment: datetime) -> dg.ScheduleEvaluationContext:
            return dg.build_schedule_context(
                instance, scheduled_execution_time=moment, repository_def=repository
            )

        (asked,) = daily.evaluate_tick(at(night)).run_requests or []
        assert asked.partition_key == "2024-09-30"
        later = at(datetime(2026, 1, 1, tzinfo=UTC))
        assert "the source has 2024-09-09" in str(daily.evaluate_tick(later).skip_message)


def tick(root: Path) -> tuple[list[dg.RunRequest], str]:
    with dg.DagsterInstance.ephemeral() as instance:
        repository = build_definitions(root=root).get_repository_def()
        context = dg.build_sensor_context(instance, repository_def=repository)
        data = catalog_sensor(root).evaluate_tick(context)
        return list(data.run_requests or []), str(data.skip_message)


def test_a_dropped_catalog_becomes_the_master_of_its_day_and_a_run(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert "no catalog in" in tick(world.root)[1]
    inbox = world.root / INBOX
    inbox.mkdir(parents=True)
    items = small_source(num_users=20, num_items=40, days=45).products()
    items.head(39).write_parquet(inbox / "2024-10-20.parquet")
    (asked,), _ = tick(world.root)
    assert asked.partition_key == "2024-10-20"
    assert list(read_binding(world.root).masters) == ["2024-10-20"]
    assert not list(inbox.glob("[!.]*")), "taken, so that it is not taken twice"
    assert World.open(world.root).why_stale(STAGES["interaction_events"], "2024-10-20") == "missing"


def test_a_bad_catalog_beside_a_good_one_costs_the_good_one_nothing(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    inbox = world.root / INBOX
    inbox.mkdir(parents=True)
    items = small_source(num_users=20, num_items=40, days=45).products()
    for name in ("2024-10-20.parquet", "tomorrow.parquet", "yesterday.parquet"):
        items.head(39).write_parquet(inbox / name)
    (asked,), _ = tick(world.root)
    assert asked.partition_key == "2024-10-20"
    for name in ("tomorrow.parquet", "yesterday.parquet"):
        items.head(39).write_parquet(inbox / name)
    runs, why = tick(world.root)
    assert not runs
    assert "tomorrow" in why
    assert "yesterday" in why


@pytest.mark.parametrize(("name", "said"), [("tomorrow.csv", "tomorrow"), ("2024-10-20.csv", "item_id")])
def test_a_bad_catalog_is_put_aside_with_an_alert(
    tmp_path: Path, name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = small_world(tmp_path)
    inbox = world.root / INBOX
    inbox.mkdir(parents=True)
    pl.DataFrame({"sku": ["1"]}).write_csv(inbox / name)
    asked, why = tick(world.root)
    assert not asked
    assert said in why
    (alert,) = AlertLog(world.root).alerts()
    assert (alert.kind, alert.owner[:5]) == ("file_refused", "team:")
    assert "refused" in caplog.text
    assert read_binding(world.root).masters == {}
    assert "no catalog in" in tick(world.root)[1]


KILLED = """
import os, signal, sys
from pathlib import Path
import dagster as dg
from sigma_assets.instance import open_instance

@dg.asset(pool="training")
def training():
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)

with open_instance(Path(sys.argv[1])) as instance:
    job = dg.Definitions(assets=[training], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance).success
"""


def test_a_killed_training_gives_its_pool_slot_back(tmp_path: Path) -> None:
    """One slot for all trainings; SIGKILL leaves it taken until the next process has buried the run."""

    def start(how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), how]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert start("die").returncode == -9
    with open_instance(tmp_path) as instance:
        taken = instance.event_log_storage.get_concurrency_info(TRAINING)
        assert (taken.slot_count, taken.active_slot_count) == (1, 1)
        assert len(bury_dead_runs(instance)) == 1
        assert instance.event_log_storage.get_concurrency_info(TRAINING).active_slot_count == 0
    done = start("live")
    assert done.returncode == 0, done.stderr[-2000:]
