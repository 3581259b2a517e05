"""Event files as they grow: JSON lines and Parquet, read from where the cursor stands, in batches.

Delivers at least once: a file that was replaced or cut is read again from its start, and the store counts every event once.
Each row ends as an event or as a refusal with a reason. Our choice.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from sigma_core import columns as c
from sigma_core.data.sources.base import SourceError, calendar_times
from sigma_core.serving.live_store import Cursor, LiveEvent, LiveStore, Refused, micros

LINES: Final = (".jsonl", ".ndjson", ".json")
PARQUET: Final = ".parquet"
TYPES: Final = ("purchase", "view", "rating")
MAX_ID: Final = 128
_MARKED: Final = 256  # leading bytes that tell whether a file is still the same


class Batch(NamedTuple):
    """Some rows of one file: events, refusals, and where to go on once they are stored."""

    events: list[LiveEvent]
    refused: list[Refused]
    cursor: Cursor


class EventError(ValueError):
    """A row is no event; the message is the reason."""


def read_event(row: Mapping[str, Any], now: datetime | None = None) -> LiveEvent:
    """An event from a row of `user_id, item_id, event_time` and, if given, `event_type, session_id, quantity`.

    A time with an offset is taken as UTC; one more than a day ahead of `now` is refused, for it would hide all later events.

    Raises:
        EventError: null_user, null_item, bad_text, bad_time, future_time, bad_type or nonpositive_quantity.
    """
    user, item = _id(row.get(c.USER_ID), "null_user"), _id(row.get(c.ITEM_ID), "null_item")
    time = _time(row.get(c.EVENT_TIME))
    if (time - (now or datetime.now(UTC).replace(tzinfo=None))).total_seconds() > 86_400:
        raise EventError("future_time")
    kind = row.get(c.EVENT_TYPE) or "purchase"
    if kind not in TYPES:
        raise EventError("bad_type")
    quantity = row.get(c.QUANTITY)
    if quantity is not None and not (isinstance(quantity, int | float) and quantity > 0):
        raise EventError("nonpositive_quantity")
    session = row.get(c.SESSION_ID)
    return LiveEvent(user, item, micros(time), kind, "" if session is None else _text(str(session)[:MAX_ID]))


def _id(value: Any, reason: str) -> str:
    text = "" if value is None or isinstance(value, bool | float | list | dict) else str(value)
    if not 0 < len(text) <= MAX_ID:
        raise EventError(reason)
    return _text(text)


def _text(text: str) -> str:
    """The text, which can be stored: JSON may spell half a character (a lone surrogate), which no encoding holds."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EventError("bad_text") from error
    return text


def _time(value: Any) -> datetime:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (TypeError, ValueError, OverflowError) as error:
        raise EventError("bad_time") from error


def event_files(path: Path) -> list[Path]:
    """The file, or the event files of a folder in order of their names.

    Raises:
        SourceError: there is nothing at `path`, or a file of another kind.
    """
    if path.is_dir():
        return sorted(
            p for p in path.iterdir() if p.suffix in (*LINES, PARQUET) and not p.name.startswith(".")
        )
    if not path.exists():
        raise SourceError(f"--events {path} does not exist; needed an event file, or a folder of them.")
    if path.suffix not in (*LINES, PARQUET):
        raise SourceError(f"--events {path}: needed a folder, or a file {', '.join((*LINES, PARQUET))}.")
    return [path]


def batches(file: Path, store: LiveStore, size: int) -> Iterator[Batch]:
    """What the file holds beyond its cursor. Ask for the next batch after the one before is stored.

    Raises:
        SourceError: it is no file, or no Parquet table of events, or not a whole one yet.
    """
    if not file.is_file():
        raise SourceError(f"{file} is no file; needed are event files, {', '.join((*LINES, PARQUET))}.")
    source = str(file.resolve())
    known = store.cursor(source)
    if file.suffix == PARQUET:
        yield from _parquet(file, source, known, size)
    else:
        yield from _lines(file, source, known, size)


def _lines(file: Path, source: str, known: Cursor | None, size: int) -> Iterator[Batch]:
    with file.open("rb") as handle:
        mark, position = _mark(handle.read(_MARKED)), 0
        if known is not None and _same(file, known) and known.position <= file.stat().st_size:
            position = known.position
        handle.seek(position)
        events: list[LiveEvent] = []
        refused: list[Refused] = []
        for line in handle:
            if not line.endswith(b"\n"):  # still being written
                break
            _take(line, position, events, refused)
            position += len(line)
            if len(events) + len(refused) >= size:
                yield Batch(events, refused, Cursor(source, mark, position))
                events, refused = [], []
        if events or refused:
            yield Batch(events, refused, Cursor(source, mark, position))


def _take(line: bytes, position: int, events: list[LiveEvent], refused: list[Refused]) -> None:
    try:
        if not line.strip():
            return
        row = json.loads(line)
        if not isinstance(row, dict):
            raise EventError("not_json")
        events.append(read_event(row))
    except EventError as error:
        refused.append(Refused(position, str(error)))
    except (ValueError, RecursionError):
        refused.append(Refused(position, "not_json"))


def _mark(head: bytes) -> str:
    """Length and digest of a file's first bytes; the length lets a grown file be recognised."""
    return f"{len(head)}:{hashlib.blake2b(head, digest_size=12).hexdigest()}"


def _same(file: Path, known: Cursor) -> bool:
    length = int(known.mark.partition(":")[0])
    with file.open("rb") as handle:
        return _mark(handle.read(length)) == known.mark


def _parquet(file: Path, source: str, known: Cursor | None, size: int) -> Iterator[Batch]:
    stat = file.stat()
    mark = f"{stat.st_size}:{stat.st_mtime_ns}"
    position = known.position if known is not None and known.mark == mark else 0
    wanted = (c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT_TYPE, c.SESSION_ID, c.QUANTITY)
    try:
        schema = pl.read_parquet_schema(file)
        if lost := [name for name in wanted[:3] if name not in schema]:
            raise SourceError(
                f"{file}: column {', '.join(lost)} is missing; arrived: {', '.join(schema)[:400]}."
            )
        scan = pl.scan_parquet(file).select(name for name in wanted if name in schema)
        if isinstance(schema[c.EVENT_TIME], pl.Date | pl.Datetime):
            scan = scan.with_columns(calendar_times(c.EVENT_TIME, schema[c.EVENT_TIME]))
        while rows := scan.slice(position, size).collect().to_dicts():
            yield _batch(rows, position, Cursor(source, mark, position + len(rows)))
            position += len(rows)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SourceError(f"{file} is not a readable parquet table: {reason}") from error


def _batch(rows: list[dict[str, Any]], first: int, cursor: Cursor) -> Batch:
    """The rows from number `first` on, each an event or refused."""
    events: list[LiveEvent] = []
    refused: list[Refused] = []
    for number, row in enumerate(rows, start=first):
        try:
            events.append(read_event(row))
        except EventError as error:
            refused.append(Refused(number, str(error)))
    return Batch(events, refused, cursor)
