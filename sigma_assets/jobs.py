"""Jobs with names an operator understands, their schedules, and the sensor of a refused refit. All of it is off until turned on.

`sigma materialize` needs none of them: it runs one partition of one asset at a time, in order. Retries: only `ingest_day` has
any, because only a source's files may be half there at one minute and whole at the next; a failed contract is never retried, a
training that failed would fail again. Lost processes are retried by `dagster.yaml`, for every job.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg

from sigma_assets.binding import ROOT_FILE
from sigma_assets.catalog_inbox import runs_or_why_not
from sigma_assets.catalog_update import CATALOG_UPDATE
from sigma_assets.growing import FOLLOW
from sigma_assets.periods import Cadence, day_key, month_key, shard_days
from sigma_assets.refits import REPUBLISHED, Refusal, refusal_of, refusals
from sigma_assets.stages import STAGES, TRAINING
from sigma_assets.window import SPARSE
from sigma_assets.world import World

MAX_TRAINING_SECONDS: Final = 6 * 3600


@dataclass(frozen=True)
class Job:
    """A job over partitions of one cadence.

    Attributes:
        name, said: what an operator reads.
        assets: what it makes, of one partition.
        cadence: a day or a month.
        cron: when its schedule fires (UTC); "" for none.
        lag_days: how many days before the schedule's own day its partition lies.
        max_seconds: a run that takes longer is ended; 0: no limit.
        retries: of a failed step, with growing pauses.
    """

    name: str
    said: str
    assets: tuple[str, ...]
    cadence: Cadence
    cron: str = ""
    lag_days: int = 0
    max_seconds: int = 0
    retries: int = 0


JOBS: Final = (
    Job(
        "ingest_day", "Events, catalog and users of a day, cleaned and checked. Quarantines what cannot be used.",
        ("interaction_events", "item_catalog", "user_profiles"), "day", cron="0 2 * * *", lag_days=1, retries=2,
    ),
    Job(
        "close_month", "The monthly rollup that later days read instead of single days. Before `monthly_refit`.",
        ("interaction_history",), "month", cron="30 2 1-7 * *", lag_days=1,
    ),
    Job(
        "monthly_refit", "Everything that changes once a month: teacher, pairs, encoder, codebooks, base model.",
        ("item_id_embeddings", "relevance_pairs", "grounded_encoder", "refit_item_embeddings", "codebooks", "sigma_base"),
        "month", cron="0 3 1-7 * *", max_seconds=MAX_TRAINING_SECONDS,
    ),
    Job(
        "build_shard", "Instruction examples of a day; trainings read those of every few days, and its schedule makes only these.",
        ("sft_shards",), "day", cron="30 2 * * *", lag_days=1,
    ),
    Job(
        "daily_refresh", "The day's vectors, semantic IDs, adapter, promotion, index and lists. After `ingest_day`.",
        ("item_embeddings", "semantic_id_map", "lora_checkpoint", "promoted_model", "item_index", "user_to_item_index"),
        "day", cron="0 4 * * *", lag_days=1, max_seconds=MAX_TRAINING_SECONDS,
    ),
    Job(
        "catalog_update", "What a changed catalog of a day needs, and nothing else. Trains nothing.",
        CATALOG_UPDATE, "day",
    ),
    Job(
        "evaluate", "A day judged on the seven days after it, beside its opponents.",
        ("eval_report",), "day", cron="0 6 * * *", lag_days=8,
    ),
    Job(
        "monthly_ablation", "SIGMA without each of its parts on the month's refit, few steps, judged on its first days. On demand.",
        ("ablation_report",), "month", max_seconds=MAX_TRAINING_SECONDS,
    ),
)  # fmt: skip


def all_jobs() -> list[Any]:
    """Every job as Dagster's."""
    return [_as_dagster(job) for job in JOBS]


def schedules(root: Path, loaded_end: date) -> list[dg.ScheduleDefinition]:
    """One schedule for each job that has a time; stopped until someone turns it on.

    `loaded_end`: last day of the calendar that Dagster has.
    """
    return [_schedule(job, root, loaded_end) for job in JOBS if job.cron]


def partition_at(job: Job, moment: datetime, world: World) -> str | None:
    """The partition that the schedule makes at `moment`; None when the root's dates do not reach it, or nothing is made of it."""
    day, span = _day_of(job, moment), world.span
    if day < span.start or _last_day_read(job, day) > span.end or _is_between_shards(job, day, world):
        return None
    return day_key(day) if job.cadence == "day" else month_key(day)


def why_none(job: Job, moment: datetime, world: World) -> str:
    """Why there is no partition to make at `moment`, and what makes one."""
    day, span = _day_of(job, moment), world.span
    if span.start <= day <= span.end and _is_between_shards(job, day, world):
        return f"no shard is built of {day}: there is one every {span.shard_stride} days, from {span.horizon} days after {span.start}"
    said = f"the root is bound to {span.start} to {span.end}; nothing to do for {day}"
    if world.binding.path is None or day < span.start:
        return said
    return (
        f"{said}. If the source reaches {day} by now: turn on the sensor {FOLLOW}, which takes new days in, or close `sigma ui` "
        f"and run `sigma materialize --as-of {day} --root {world.root}`"
    )


def refit_sensor(root: Path) -> dg.SensorDefinition:
    """Publishes the former refit for a month whose own was refused, once a refusal; stopped by default."""

    @dg.sensor(name="republish_refused_refit", job_name="monthly_refit", minimum_interval_seconds=30)
    def watch() -> list[dg.RunRequest] | dg.SkipReason:
        world = World.open(root) if (root / ROOT_FILE).exists() else None
        waiting = [one for one in refusals(root) if world and _waits(world, one)]
        found = [
            dg.RunRequest(
                run_key=f"{one.month}-{one.at}",
                partition_key=one.month,
                asset_selection=[dg.AssetKey(asset) for asset in REPUBLISHED],
                tags={"sigma/republished": one.former},
            )
            for one in waiting
        ]
        return runs_or_why_not(found, "no refused refit waits for the former one")

    return watch


def _waits(world: World, refusal: Refusal) -> bool:
    """Whether the refusal counts and the former refit is not published for its month yet."""
    return refusal_of(world, refusal.month) == refusal and any(
        world.why_stale(STAGES[asset], refusal.month) for asset in REPUBLISHED
    )


def _as_dagster(job: Job) -> Any:
    retry = dg.RetryPolicy(max_retries=job.retries, delay=30, backoff=dg.Backoff.EXPONENTIAL)
    limit = {"dagster/max_runtime": str(job.max_seconds)} if job.max_seconds else {}
    return dg.define_asset_job(
        job.name,
        selection=list(job.assets),
        description=job.said,
        tags={"sigma/job": job.name, **limit},
        op_retry_policy=retry if job.retries else None,
    )


def _schedule(job: Job, root: Path, loaded_end: date) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{job.name}_schedule",
        job_name=job.name,
        cron_schedule=job.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"{job.said} {_when(job)}",
    )
    def fire(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if not (root / ROOT_FILE).exists():
            return dg.SkipReason(f"{root} is not bound to a source yet: run `sigma materialize` once")
        moment = context.scheduled_execution_time
        world = World.open(root)
        key = partition_at(job, moment, world)
        if key is None:
            return dg.SkipReason(why_none(job, moment, world))
        if _last_day_read(job, _day_of(job, moment)) > loaded_end:
            return dg.SkipReason(
                f"the root reaches {world.span.end}, Dagster knows the days up to {loaded_end}: reload the code location "
                "(Deployment > Reload), then launch the job for the day"
            )
        if job.cadence == "month" and _is_done(job, key, world):
            return dg.SkipReason(
                f"{job.name} of {key} is done, or failed its checks (then launch the job by hand)"
            )
        return dg.RunRequest(run_key=f"{job.name}/{key}/{_day(moment)}", partition_key=key)

    return fire


def _when(job: Job) -> str:
    if job.cadence == "month":
        return "On the first of a month's first seven nights on which the month before is whole."
    return f"For the partition {job.lag_days} days before." if job.lag_days else ""


def _day_of(job: Job, moment: datetime) -> date:
    """The day whose partition is due; schedules of months fire for some days, all for the month that began or ended with them."""
    due = moment.date().replace(day=1) if job.cadence == "month" else moment.date()
    return due - timedelta(days=job.lag_days)


def _is_done(job: Job, month: str, world: World) -> bool:
    """Whether nothing is left for later nights of a month's schedule: all is there, or failed its checks, which a night does not mend.

    A training that is there is not made again for changed inputs; what trains nothing is (a rollup without its last day).
    """
    if any(world.failure(asset, month) for asset in job.assets):
        return True
    trains = any(STAGES[asset].pool == TRAINING for asset in job.assets)
    return all(
        world.manifest(asset, month) and (trains or not world.why_stale(STAGES[asset], month))
        for asset in job.assets
    )


def _last_day_read(job: Job, day: date) -> date:
    """The last day of data that the partition of `day` waits for: a month that begins on it reads what lies before."""
    return day - timedelta(days=1) if job.cadence == "month" and day.day == 1 else day


def _is_between_shards(job: Job, day: date, world: World) -> bool:
    return set(job.assets) <= SPARSE and not shard_days(day, day, world.span)


def _day(moment: datetime) -> date:
    return moment.date()
