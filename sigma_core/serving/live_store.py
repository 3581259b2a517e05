"""The live store: events as they arrive, whose lists are due, current contexts and lists for point reads, file cursors.

One SQLite file in WAL mode. SQLite and not LMDB because an event, the cursor that says it was read and the user it makes due
must be committed together, readers in other processes must see whole rows while one writes, and it needs no dependency.
Every effect is idempotent: an event is known by what it says, a row gives way only to a newer one. Source: paper, nearline
serving; the store is our choice.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from sigma_core.data.events import POSITIVE_TYPES

FILE: Final = Path("live") / "live.sqlite"  # under the root
EPOCH: Final = datetime(1970, 1, 1)
CHUNK: Final = 1000  # lists of a day that are written under one lock
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
  key BLOB PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL, time_us INTEGER NOT NULL, type TEXT NOT NULL,
  session TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_of_user ON events (user_id, time_us);
CREATE TABLE IF NOT EXISTS due (user_id TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users (
  user_id TEXT PRIMARY KEY, watermark_us INTEGER NOT NULL, num_events INTEGER NOT NULL, model_day TEXT NOT NULL,
  context TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lists (
  user_id TEXT NOT NULL, task TEXT NOT NULL, watermark_us INTEGER NOT NULL, num_events INTEGER NOT NULL,
  model_day TEXT NOT NULL, model TEXT NOT NULL, items TEXT NOT NULL, PRIMARY KEY (user_id, task)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (source TEXT PRIMARY KEY, mark TEXT NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
  source TEXT NOT NULL, position INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (source, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
# a row gives way to one that knows later events, or as late ones and more, or the same from a newer day's model
_PUT: Final = """
INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO UPDATE SET {update}
WHERE (excluded.watermark_us, excluded.num_events, excluded.model_day) >= (watermark_us, num_events, model_day)
"""


def _put(table: str, *columns: str, keys: int) -> str:
    """SQL that writes a row unless the one there knows more."""
    update = ", ".join(f"{name} = excluded.{name}" for name in columns)
    return _PUT.format(table=table, marks=", ".join("?" * (keys + len(columns))), update=update)


# lists of other models that know nothing a day does not know, and that it brought nothing in place of
_LEFT: Final = "model != ? AND (watermark_us, num_events) <= (?, 0)"
_PUT_USER: Final = _put("users", "watermark_us", "num_events", "model_day", "context", keys=1)
_PUT_LIST: Final = _put("lists", "watermark_us", "num_events", "model_day", "model", "items", keys=2)


class LiveEvent(NamedTuple):
    """One event. `time_us`: microseconds of the source's own clock since 1970."""

    user_id: str
    item_id: str
    time_us: int
    type: str = "purchase"
    session: str = ""

    @property
    def key(self) -> bytes:
        """What tells it from others: user, item, time, session and type, as in `clean_events`."""
        said = json.dumps([self.user_id, self.item_id, self.time_us, self.session, self.type])
        return hashlib.blake2b(said.encode(), digest_size=16).digest()

    @property
    def day(self) -> date:
        """The day it belongs to."""
        return (EPOCH + timedelta(microseconds=self.time_us)).date()


class Cursor(NamedTuple):
    """How far a source was read. `mark` tells whether it is still the same source."""

    source: str
    mark: str
    position: int


class Refused(NamedTuple):
    """A row that is no event: where it stands, and why."""

    position: int
    reason: str


@dataclass(frozen=True)
class Taken:
    """What an ingest did."""

    new: int
    duplicates: int
    refused: int


class LiveRow(NamedTuple):
    """A stored list or context with what it knows: latest event, number of live events, the day of its model."""

    watermark_us: int
    num_events: int
    model_day: str
    value: Any


class Update(NamedTuple):
    """A refreshed user: `since` is the due mark that was seen before the events were read."""

    user_id: str
    since: int
    watermark_us: int
    num_events: int
    context: Mapping[str, Any]
    lists: Mapping[str, Sequence[Any]]  # task -> rows of the list


def micros(time: datetime) -> int:
    """A naive time as microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)


def end_of_day(day: date) -> int:
    """The last microsecond of a day: the watermark of what a daily asset knows."""
    return micros(datetime.combine(day, datetime.min.time())) + 86_400_000_000 - 1


class LiveStore:
    """The store of one root. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            ValueError: it was written by a newer release, or is no store.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._local = threading.local()
        try:
            connection = self._connection
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > _SCHEMA_VERSION:
                raise ValueError(f"{path} has schema {version}, this release reads up to {_SCHEMA_VERSION}.")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise
            raise ValueError(
                f"{path} cannot be used as a live store ({error}). Where the disk is full, make room. Else put it back from a backup, or "
                f"move it and its -wal and -shm files away and give the events since the last materialized day again."
            ) from error

    @classmethod
    def of_root(cls, root: Path) -> "LiveStore":
        """The store of a root."""
        return cls(root / FILE)

    @property
    def _connection(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if made is None:
            made = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
            self._local.connection = made
        return made

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; waits for other writers. After an error, whoever raised it, the connection is free for the next."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:  # SQLite itself rolls back when the disk is full
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.DatabaseError):
                raise type(error)(f"{self.path}: {error}; nothing of this was stored") from error
            raise

    # -------------------------------------------------------------------------------------- events
    def ingest(
        self, events: Iterable[LiveEvent], cursor: Cursor | None = None, refused: Sequence[Refused] = ()
    ) -> Taken:
        """Remember events once each, make their users due, and move the cursor: together or not at all."""
        new = seen = 0
        with self._writing() as connection:
            since = int(self._fact(connection, "since") or 0) + 1
            for event in events:
                seen += 1
                row = (event.key, event.user_id, event.item_id, event.time_us, event.type, event.session)
                added = connection.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
                if not added.rowcount:
                    continue
                new += 1
                if event.type in POSITIVE_TYPES:
                    connection.execute("INSERT OR REPLACE INTO due VALUES (?, ?)", (event.user_id, since))
            self._set_fact(connection, "since", str(since))
            if cursor is not None:
                connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", cursor)
                rows = [(cursor.source, no.position, no.reason) for no in refused]
                connection.executemany("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", rows)
        return Taken(new, seen - new, len(refused))

    def cursor(self, source: str) -> Cursor | None:
        """How far a source was read."""
        row = self._connection.execute("SELECT * FROM cursors WHERE source = ?", (source,)).fetchone()
        return Cursor(*row) if row else None

    def events_of(self, user_id: str) -> list[LiveEvent]:
        """All live events of a user, by time."""
        query = "SELECT user_id, item_id, time_us, type, session FROM events WHERE user_id = ? ORDER BY time_us, key"
        return [LiveEvent(*row) for row in self._connection.execute(query, (user_id,))]

    def taken_by(self, user_id: str) -> set[str]:
        """Items of the user's live events that count as taking one."""
        rows = self._connection.execute("SELECT item_id, type FROM events WHERE user_id = ?", (user_id,))
        return {item for item, kind in rows if kind in POSITIVE_TYPES}

    def counts(self) -> dict[str, int]:
        """Rows of every table."""
        tables = ("events", "due", "users", "lists", "refused")
        count = self._connection.execute
        return {name: int(count(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in tables}  # noqa: S608 own names

    # ------------------------------------------------------------------------------------- refresh
    def due(self, most: int) -> list[tuple[str, int]]:
        """Users whose lists are older than their events, longest waiting first, with their due marks."""
        query = "SELECT user_id, since FROM due ORDER BY since, user_id LIMIT ?"
        return [(str(user), int(since)) for user, since in self._connection.execute(query, (most,))]

    def update(self, updates: Sequence[Update], model_day: str, model: str) -> None:
        """Write refreshed users, each whole; one that got a newer event meanwhile stays due."""
        with self._writing() as connection:
            for one in updates:
                known = (one.watermark_us, one.num_events, model_day)
                connection.execute(_PUT_USER, (one.user_id, *known, _packed(one.context)))
                lists = [
                    (one.user_id, task, *known, model, _packed(rows)) for task, rows in one.lists.items()
                ]
                connection.executemany(_PUT_LIST, lists)
                connection.execute(
                    "DELETE FROM due WHERE user_id = ? AND since = ?", (one.user_id, one.since)
                )

    def load_day(self, lists: Iterable[tuple[str, str, Sequence[Any]]], day: date, model: str) -> bool:
        """Take over the lists of a daily asset, each whole; False when this very day was loaded before.

        Lists that know later events stay, and their users become due for the new model. Lists of former days that the day brings
        nothing in place of are gone (their users left the index), unless they know later events.

        The lists are made ready without a lock and written `CHUNK` at a time, so that events are taken in meanwhile. From the
        first chunk to the last no day counts as loaded: what was killed between is done anew by the next call, for whichever
        model. When another model's day is begun meanwhile, that one has the say and this returns False.
        """
        if self._fact(self._connection, "loaded") == model:
            return False
        known = (end_of_day(day), 0, day.isoformat())
        with self._writing() as connection:
            connection.execute("DELETE FROM facts WHERE name = 'loaded'")
            self._set_fact(connection, "loading", model)
        rows = ((user, task, *known, model, _packed(items)) for user, task, items in lists)
        while chunk := list(islice(rows, CHUNK)):
            with self._writing() as connection:
                if self._fact(connection, "loading") != model:
                    return False
                connection.executemany(_PUT_LIST, chunk)
        find = f"SELECT user_id, task FROM lists WHERE {_LEFT}"  # noqa: S608 own words
        left = self._connection.execute(find, (model, known[0])).fetchall()
        with self._writing() as connection:
            if self._fact(connection, "loading") != model:
                return False
            drop = f"DELETE FROM lists WHERE user_id = ? AND task = ? AND {_LEFT}"  # noqa: S608 own words
            connection.executemany(drop, [(*one, model, known[0]) for one in left])
            since = int(self._fact(connection, "since") or 0) + 1
            connection.execute(
                "INSERT OR REPLACE INTO due SELECT user_id, ? FROM users WHERE watermark_us >= ?",
                (since, known[0]),
            )
            self._set_fact(connection, "since", str(since))
            self._set_fact(connection, "loaded", model)
        return True

    # ---------------------------------------------------------------------------------- point reads
    def list_of(self, user_id: str, task: str) -> LiveRow | None:
        """A user's list: rows of (item_id, score, prefix, prefix_probability)."""
        return self._row(
            "SELECT watermark_us, num_events, model_day, items FROM lists WHERE user_id = ? AND task = ?",
            (user_id, task),
        )

    def user(self, user_id: str) -> LiveRow | None:
        """A user's live context; None for one without live events."""
        return self._row(
            "SELECT watermark_us, num_events, model_day, context FROM users WHERE user_id = ?", (user_id,)
        )

    def _row(self, query: str, values: tuple[str, ...]) -> LiveRow | None:
        row = self._connection.execute(query, values).fetchone()
        return LiveRow(row[0], row[1], row[2], from_json(row[3], cache_strings=False)) if row else None

    @staticmethod
    def _fact(connection: sqlite3.Connection, name: str) -> str | None:
        row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    @staticmethod
    def _set_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _packed(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
