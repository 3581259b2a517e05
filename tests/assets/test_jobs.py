"""Jobs an operator starts, their schedules, and the pool of trainings."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sigma_assets.definitions import build_definitions
from sigma_assets.instance import bury_dead_runs, open_instance
from sigma_assets.jobs import JOBS, partition_at, schedules, why_none
from sigma_assets.periods import shard_days
from sigma_assets.stages import STAGES, TRAINING
from tests.assets.roots import small_world
from tests.assets.test_promoting import adapter
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
    (daily,) = [one for one in schedules(world.root, world.span.end) if one.name == "daily_refresh_schedule"]
    repository = build_definitions(root=world.root).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:

        def at(moment: datetime) -> dg.ScheduleEvaluationContext:
            return dg.build_schedule_context(
                instance, scheduled_execution_time=moment, repository_def=repository
            )

        (asked,) = daily.evaluate_tick(at(night)).run_requests or []
        assert asked.partition_key == "2024-09-30"
        later = at(datetime(2026, 1, 1, tzinfo=UTC))
        why = str(daily.evaluate_tick(later).skip_message)
        assert "bound to 2024-09-09" in why
        assert "sensor follow_source" in why
        assert "sigma materialize --as-of 2025-12-31" in why
        (stale,) = [
            one for one in schedules(world.root, date(2024, 9, 29)) if one.name == daily.name
        ]  # Dagster's calendar ends a day too early
        assert "reload the code location" in str(stale.evaluate_tick(at(night)).skip_message)


@pytest.mark.parametrize(("num_days", "refit"), [(53, "2024-11-01"), (52, None)])
def test_a_refit_is_due_on_the_first_as_soon_as_the_old_month_is_whole(
    tmp_path: Path, num_days: int, refit: str | None
) -> None:
    """The newest day of a live root is the day before; the data of the first test end on October 31st."""
    world = small_world(tmp_path, small_source(num_users=20, num_items=40, days=num_days))
    assert world.span.end == date(2024, 10, num_days - 22)
    jobs, night = {job.name: job for job in JOBS}, datetime(2024, 11, 1, 3, tzinfo=UTC)
    assert partition_at(jobs["monthly_refit"], night, world) == refit
    assert partition_at(jobs["close_month"], night, world) == (refit and "2024-10-01")
    assert partition_at(jobs["daily_refresh"], night, world) == (refit and "2024-10-31")
    assert partition_at(jobs["monthly_refit"], datetime(2024, 12, 1, 3, tzinfo=UTC), world) is None
    repository = build_definitions(root=world.root).get_repository_def()
    job = repository.get_job("monthly_refit")
    assert job.partitions_def is not None
    assert job.partitions_def.has_partition_key("2024-11-01") == bool(refit)
    (due,) = [one for one in schedules(world.root, world.span.end) if one.name == "monthly_refit_schedule"]
    with dg.DagsterInstance.ephemeral() as instance:
        tick = due.evaluate_tick(
            dg.build_schedule_context(instance, scheduled_execution_time=night, repository_def=repository)
        )
    assert [run.partition_key for run in tick.run_requests or []] == ([refit] if refit else [])


def test_an_export_that_comes_late_is_refitted_on_one_of_the_next_nights(tmp_path: Path) -> None:
    """Schedules of months fire on the first seven nights, all for the same month, and only until it is there."""
    world = small_world(tmp_path, small_source(num_users=20, num_items=40, days=53))
    jobs = {job.name: job for job in JOBS}
    for night in (1, 2, 7):
        moment = datetime(2024, 11, night, 3, tzinfo=UTC)
        assert partition_at(jobs["close_month"], moment, world) == "2024-10-01"
        assert partition_at(jobs["monthly_refit"], moment, world) == "2024-11-01"
    (due,) = [one for one in schedules(world.root, world.span.end) if one.name == "close_month_schedule"]
    repository = build_definitions(root=world.root).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(night: int) -> Any:
            moment = datetime(2024, 11, night, 2, 30, tzinfo=UTC)
            context = dg.build_schedule_context(
                instance, scheduled_execution_time=moment, repository_def=repository
            )
            return due.evaluate_tick(context)

        assert [run.partition_key for run in tick(3).run_requests or []] == ["2024-10-01"]
        world.store.write("interaction_history", "2024-10-01", adapter(0))
        assert tick(4).run_requests, "made of other days than there are now"
        world.mark_failure("interaction_history", "2024-10-01", "too few rows")
        assert not tick(5).run_requests
        assert "failed its checks" in str(tick(5).skip_message)


def test_shards_are_built_by_schedule_on_the_days_that_trainings_read(tmp_path: Path) -> None:
    world, (job,) = small_world(tmp_path), [job for job in JOBS if job.name == "build_shard"]
    assert job.cron
    nights = [datetime(2024, 10, day, 2, 30, tzinfo=UTC) for day in range(1, 24)]
    made = [key for night in nights if (key := partition_at(job, night, world))]
    assert made == shard_days(date(2024, 9, 30), date(2024, 10, 22), world.span)
    assert len(made) == 3
    assert "one every 7 days" in why_none(job, nights[0], world)


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
