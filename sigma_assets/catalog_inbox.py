"""The drop folder for catalogs, `<root>/inbox/catalog`: a sensor that takes a file in, and one that takes it back.

The same rules as `sigma catalog-update`: the day must be there, a file that leaves out too much is refused, and a master that
makes no acceptable catalog does not stay. What is refused is put aside with an alert. Our choice.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl

from sigma_assets.alert_sources import file_refused
from sigma_assets.binding import ROOT_FILE, read_binding
from sigma_assets.catalog_update import (
    CATALOG_UPDATE,
    MAX_DELISTED,
    accept_master,
    former_catalog,
    need_the_day,
    refuse_half_files,
    take_back,
)
from sigma_assets.locking import binding_lock
from sigma_assets.masters import read_catalog_file
from sigma_assets.periods import as_date, day_key
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError, digest_bytes

INBOX: Final = "inbox/catalog"
CATALOG_JOB: Final = "catalog_update"
FILE_TAG: Final = "sigma/catalog_file"
MASTER_TAG: Final = "sigma/master"
FORMER_TAG: Final = "sigma/former_master"
REFUSING: Final = (ValueError, OSError, ArtifactError, pl.exceptions.PolarsError)
"""What a file is put aside for: it is no catalog (or no readable one), or what it would be put beside cannot be read."""


def catalog_sensor(root: Path) -> dg.SensorDefinition:
    """Takes in `<root>/inbox/catalog/<DAY>.parquet` (or .csv) and runs `catalog_update` for its day; stopped by default.

    A file is taken when two looks found it of the same size and time: until then somebody may still be copying it. One is made
    master at a look, so that its run is asked for before anything else can go wrong; the others follow at the next looks.
    """

    @dg.sensor(name=CATALOG_JOB, job_name=CATALOG_JOB, minimum_interval_seconds=30)
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        files = sorted((root / INBOX).glob("[!.]*")) if (root / ROOT_FILE).exists() else []
        seen, before = {file.name: _state(file) for file in files}, json.loads(context.cursor or "{}")
        found: list[dg.RunRequest | dg.SkipReason] = []
        for file in files:
            if before.get(file.name) != seen[file.name] or seen[file.name] is None:
                why = f"{file.name} is taken in at the next look, if it has stopped changing by then"
                found.append(dg.SkipReason(why))
            elif not any(isinstance(one, dg.RunRequest) for one in found):
                found.append(_take_in(root, file))
        answer = runs_or_why_not(
            found, f"no catalog in {root / INBOX}; put one there as <DAY>.parquet or <DAY>.csv"
        )
        cursor = json.dumps(seen)
        if isinstance(answer, dg.SkipReason):
            return dg.SensorResult(skip_reason=answer, cursor=cursor)
        return dg.SensorResult(run_requests=answer, cursor=cursor)

    return watch


def take_back_sensor(root: Path) -> Any:
    """Puts the former product master back when a dropped one made no acceptable catalog; running by default."""

    @dg.run_failure_sensor(
        name="take_back_refused_catalog",
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A dropped catalog whose day could not be made from it does not stay the product master.",
    )
    def on_failure(context: dg.RunFailureSensorContext) -> None:
        undo(root, context.instance, context.dagster_run)

    return on_failure


def undo(root: Path, instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Take the master of a failed run back, with an alert, where it was the catalog that failed; returns whether it was.

    A run that failed later, or whose process died, keeps it: the catalog is good, or is tried again.
    """
    given, day = run.tags.get(MASTER_TAG), run.tags.get("dagster/partition", "")
    failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE) if given else []
    steps = {entry.dagster_event.step_key for entry in failures if entry.dagster_event}
    if not given or CATALOG_UPDATE[0] not in steps:
        return False
    with binding_lock(root):
        why = World.open(root).failure(CATALOG_UPDATE[0], day) or "see the run's log"
        if not take_back(root, as_date(day), given, run.tags.get(FORMER_TAG, "")):
            return False
    name = run.tags[FILE_TAG]
    taken = root / INBOX / f".{name}.taken"
    if taken.exists():
        taken.replace(taken.with_name(f".{name}.refused"))
    file_refused(
        root, CATALOG_UPDATE[0], day, f"{name} was taken back, the former product master counts again: {why}"
    )
    return True


def runs_or_why_not(
    found: Sequence[dg.RunRequest | dg.SkipReason], none: str
) -> list[dg.RunRequest] | dg.SkipReason:
    """What a sensor may answer: runs, or one reason. Dagster throws away a tick that gives both."""
    runs = [one for one in found if isinstance(one, dg.RunRequest)]
    reasons = [str(one.skip_message) for one in found if isinstance(one, dg.SkipReason)]
    return runs or dg.SkipReason("; ".join(reasons) or none)


def _state(file: Path) -> list[int] | None:
    """Size and time; None: it was taken away since it was listed."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _take_in(root: Path, file: Path) -> dg.RunRequest | dg.SkipReason:
    """Make the file the product master of the day it is named after; a bad one is put aside with an alert."""
    try:
        day, products, taken = as_date(file.stem), read_catalog_file(file), digest_bytes(file.read_bytes())
        with binding_lock(root):
            binding = read_binding(root)
            world = World(root, binding)
            need_the_day(world, day)
            refuse_half_files(former_catalog(world, day), products, MAX_DELISTED)
            masters = accept_master(root, binding, day, products).binding.masters
    except REFUSING as error:
        _rename(file, "refused")
        file_refused(root, CATALOG_UPDATE[0], file.stem, f"{file.name} was refused: {error}")
        return dg.SkipReason(f"{file.name} was refused: {error}")
    _rename(file, "taken")
    return _run_of(file, taken, day, masters.get(day_key(day), ""), binding.masters.get(day_key(day), ""))


def _rename(file: Path, what: str) -> None:
    """Mark the file so that it is not looked at again; one that somebody took away meanwhile needs no mark."""
    with suppress(FileNotFoundError):
        file.replace(file.with_name(f".{file.name}.{what}"))


def _run_of(file: Path, taken: str, day: date, master: str, former: str) -> dg.RunRequest:
    """The run for a file that was taken in; its tags say how to take it back."""
    tags = {"sigma/catalog": taken, FILE_TAG: file.name}
    if master != former:
        tags |= {MASTER_TAG: master, FORMER_TAG: former}
    return dg.RunRequest(
        run_key=f"{day}-{taken}-{datetime.now(UTC):%Y%m%d%H%M%S}", partition_key=day_key(day), tags=tags
    )
