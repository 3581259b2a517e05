"""The sensor `follow_source`: what a growing source got since is bound to the root, and its days are ingested.

Which days wait is read from the root, not from what a look found: a look that was killed, or a `sigma materialize` that bound the
growth in between, loses none. Dagster knows the days of the calendar that was loaded; `sigma ui` has the code location loaded
again when `root.json` reaches further, and only then are the new days asked for. Our choice.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl

from sigma_assets.alert_sources import deliver, owner_of
from sigma_assets.alerts import Alert, AlertLog
from sigma_assets.binding import ROOT_FILE, Request, RootError, read_binding, resolve, save
from sigma_assets.locking import binding_lock
from sigma_assets.masters import firsts_of, remember_first
from sigma_assets.periods import day_key, days
from sigma_assets.world import World, event_digest
from sigma_core.artifacts import ArtifactError, digest_json
from sigma_core.config import ConfigError
from sigma_core.data.sources.base import SourceError

FOLLOW: Final = "follow_source"
INGEST: Final = "ingest_day"
EVENTS: Final = "interaction_events"
MAX_REQUESTS: Final = 31
"""Days asked for at one look; the others follow at the next ones."""
_UNREADABLE: Final = (RootError, SourceError, ConfigError, OSError, ArtifactError, pl.exceptions.PolarsError)


@dataclass(frozen=True)
class Cursor:
    """What the sensor remembers.

    Attributes:
        seen: digest of names, sizes and times of the source's files at the last look.
        read: the same when they were last read.
        waiting: days that are to be ingested, oldest first.
    """

    seen: str = ""
    read: str = ""
    waiting: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """From a sensor's cursor; an empty one before the first look."""
        values: dict[str, Any] = json.loads(text or "{}")
        return cls(values.get("seen", ""), values.get("read", ""), tuple(values.get("waiting", ())))

    def text(self) -> str:
        """As a sensor's cursor."""
        return json.dumps({"seen": self.seen, "read": self.read, "waiting": self.waiting})


def follow_sensor(root: Path, loaded_end: date) -> dg.SensorDefinition:
    """Binds what the source got since, and runs `ingest_day` for each day not ingested or corrected; stopped by default.

    `loaded_end`: last day of the calendar that Dagster has.
    """

    @dg.sensor(
        name=FOLLOW,
        job_name=INGEST,
        minimum_interval_seconds=30,
        description="Reads the source again when its files changed; ingests days that are not yet, or were corrected.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before = Cursor.parse(context.cursor)
        runs, why, cursor = look(root, loaded_end, before, lambda: queued_days(context.instance))
        if runs:
            return dg.SensorResult(run_requests=runs, cursor=cursor.text())
        return dg.SensorResult(skip_reason=why, cursor=cursor.text())

    return watch


def queued_days(instance: dg.DagsterInstance) -> set[str]:
    """Days whose ingestion is asked for and has not begun: it will read what is bound then."""
    waiting = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
    runs = instance.get_runs(dg.RunsFilter(job_name=INGEST, statuses=waiting))
    return {run.tags.get("dagster/partition", "") for run in runs}


def look(
    root: Path, loaded_end: date, before: Cursor, queued: Callable[[], Collection[str]] = tuple
) -> tuple[list[dg.RunRequest], str, Cursor]:
    """One look at the source: runs to ask for, or why there are none; and what to remember.

    `queued` tells days that need not be asked for again; asked once the source is bound.
    """
    if not (root / ROOT_FILE).exists():
        return [], f"{root} is not bound to a source yet: run `sigma materialize` once", before
    binding = read_binding(root)
    if binding.path is None:
        return [], f"source {binding.source} has no files that could grow", before
    try:
        state = _state(Path(binding.path))
    except OSError as error:
        _refused(root, str(error))
        return [], f"the source was not read: {error}", before
    if state != before.seen:
        why = "the source's files changed; they are read at the next look, if they stopped changing by then"
        return [], why, Cursor(state, before.read, before.waiting)
    waiting = before.waiting
    if state != before.read:
        try:
            open_days, asked_for = take_in(root), queued()
            waiting = tuple(day for day in open_days if day not in asked_for)
        except _UNREADABLE as error:
            _refused(root, str(error))
            return [], f"the source was not read: {error}", Cursor(state, state, waiting)
    now = Cursor(state, state, waiting)
    if not waiting:
        return [], f"nothing new; the source has {binding.start} to {read_binding(root).end}", now
    if waiting[-1] > day_key(loaded_end):
        why = (
            f"the source now reaches {waiting[-1]}, Dagster knows the days up to {loaded_end}. `sigma ui` has them loaded "
            "within a minute; elsewhere reload the code location (Deployment > Reload)."
        )
        return [], why, now
    asked, left = waiting[:MAX_REQUESTS], waiting[MAX_REQUESTS:]
    runs = [dg.RunRequest(run_key=f"{day}-{state}", partition_key=day) for day in asked]
    return runs, "", Cursor(state, state, left)


def take_in(root: Path) -> list[str]:
    """Bind the source as it is now; returns the days that wait to be ingested, oldest first.

    Raises:
        SourceError: it cannot be read; or begins later or ends earlier than before, more likely half a file than a decision; or
            begins earlier, which moves every window that counts from the first day.
    """
    with binding_lock(root):
        old = read_binding(root)
        new, _ = resolve(root, Request())
        if new.start < old.start:
            raise SourceError(
                f"the source now begins on {new.start}, and began on {old.start}. Correct the times of the rows before that day, "
                "or take them out; if they are meant to be there, close `sigma ui` and run `sigma materialize`."
            )
        if new.start > old.start or new.end < old.end:
            raise SourceError(
                f"the source has {new.start} to {new.end}, and had {old.start} to {old.end}. Put the missing days back; "
                "if they are meant to be gone, close `sigma ui` and run `sigma materialize`."
            )
        save(root, new)
        remember_first(root, new)
    return _waiting(World(root, new))


def _waiting(world: World) -> list[str]:
    """Days of the root that are not there, or there of other events than the source has now.

    A day that failed its checks waits only once its own events are others than those that failed. Changed products, settings or code make
    no day wait: that would be all of them, and `sigma materialize` makes them again at once.
    """
    firsts, now = firsts_of(world.root, world.binding), world.binding.event_days

    def waits(day: str) -> bool:
        if world.failure(EVENTS, day) is not None:
            return now.get(day) != world.failed_events(EVENTS, day)
        manifest = world.manifest(EVENTS, day)
        if manifest is None or not now:
            return manifest is None
        made_from = manifest["lineage"].get("source/events")
        return all(made_from != event_digest(now.get(day, ""), first) for first in firsts)

    return [day for day in days(world.span.start, world.span.end, world.span) if waits(day)]


def _state(path: Path) -> str:
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files]
    return digest_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _refused(root: Path, why: str) -> None:
    to_do = "Correct the source's files; they are read again when they change. Until then the root is bound as it was."
    AlertLog(root).raise_alert(
        Alert(
            "file_refused",
            f"the source was not read: {why}",
            "ERROR",
            EVENTS,
            "",
            to_do=to_do,
            owner=owner_of(EVENTS),
        )
    )
    deliver(root)
