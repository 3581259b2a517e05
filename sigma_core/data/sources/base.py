"""What a data source must offer, the frames it hands over, and the error it raises for malformed input.

A source reads files and gives them the project's column names; it drops no row (cleaning is `events.clean_events`)
and knows nothing of catalogs, days or tasks. Our choice; the paper is silent on data formats.
"""

import codecs
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import polars as pl

from sigma_core import columns as c

RAW_EVENT_SCHEMA: Final[dict[str, Any]] = {
    c.USER_ID: pl.String,
    c.ITEM_ID: pl.String,
    c.EVENT_TIME: pl.Datetime("us"),
    c.EVENT_TYPE: pl.String,
    c.SESSION_ID: pl.String,
    c.QUANTITY: pl.Float64,
    c.PRICE: pl.Float64,
    c.QUERY_TEXT: pl.String,
    c.SOURCE_ROW: pl.Int64,
}

PRODUCT_COLUMNS: Final = (c.TITLE, c.ITEM_TYPE, c.CATEGORY, c.DEPARTMENT, c.BRAND, c.MAKER, c.SIZE)
PRODUCT_SCHEMA: Final[dict[str, Any]] = {c.ITEM_ID: pl.String, **dict.fromkeys(PRODUCT_COLUMNS, pl.String)}

MAX_GAP_DAYS: Final = 365
"""More days in a row without any event, and the rows before them are taken for mistyped."""

Vectors = tuple[list[str], np.ndarray]
_OURS: Final = frozenset(value for value in vars(c).values() if isinstance(value, str))
_A_DAY: Final = {"d": 1, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_SHOWN_COLUMNS: Final = 30
_SHOWN_CHARACTERS: Final = 200


class SourceError(ValueError):
    """A source is unknown, its files are missing, or one holds what it must not."""


@runtime_checkable
class Source(Protocol):
    """Where events, products and users come from."""

    name: str

    def events(self) -> pl.DataFrame:
        """Every row of the source, in its order, as `RAW_EVENT_SCHEMA`; unparsable times and missing ids are null."""

    def products(self) -> pl.DataFrame:
        """The product master as `PRODUCT_SCHEMA`, one row an item, in words a person can read."""

    def users(self) -> pl.DataFrame:
        """USER_ID and any number of profile columns (String, nullable), each value a phrase that stands alone."""

    def date_range(self) -> tuple[date, date]:
        """First and last day with events, as `event_dates` has them; what lies after the last one is refused as impossible."""

    def fingerprint(self) -> str:
        """Changes when the content does; cheap to compute."""

    def id_vectors(self) -> Vectors | None:
        """The user's own collaborative vectors (item ids sorted, float32 [N, d]), or none."""

    def image_vectors(self) -> Vectors | None:
        """Image vectors (item ids sorted, float32 [N, d]), or none."""


@runtime_checkable
class ReportingSource(Protocol):
    """A source that tells what it read and left out; optional."""

    def report(self) -> dict[str, int]:
        """Counts by reason; may read the events."""


def report_of(source: Source) -> dict[str, int]:
    """The source's own counts; none where it keeps none."""
    return source.report() if isinstance(source, ReportingSource) else {}


def raw_events(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with exactly the columns of `RAW_EVENT_SCHEMA`: absent ones are null, rows are numbered from 0."""
    if c.SOURCE_ROW not in frame.columns:
        frame = frame.with_row_index(c.SOURCE_ROW)
    return frame.select(
        pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in RAW_EVENT_SCHEMA.items()
    )


def product_master(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with exactly the columns of `PRODUCT_SCHEMA`: absent ones are null, blank text is null.

    Raises:
        SourceError: a column holds lists or records instead of text; the message names it.
    """
    for name in PRODUCT_SCHEMA:
        if name in frame.columns and frame.schema[name].is_nested():
            raise SourceError(
                f"column {name} of the items: {frame.schema[name]} arrived; text is needed (join a list's values into one)."
            )
    return frame.select(
        pl.col(name).cast(pl.String).str.strip_chars().replace("", None).alias(name)
        if name in frame.columns
        else pl.lit(None, pl.String).alias(name)
        for name in PRODUCT_SCHEMA
    )


def in_calendar(times: pl.Expr, unit: str) -> pl.Expr:
    """Times or days (unit "d") of the years 1 to 9999, which Python has; null for others, whose conversion ends the process."""
    first, last = ((day - date(1970, 1, 1)).days * _A_DAY[unit] for day in (date.min, date.max))
    return pl.when(times.to_physical().cast(pl.Int64).is_between(first, last, closed="left")).then(times)


def calendar_times(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column of times, dates or nothing as naive microseconds: those with a zone become UTC, a date alone is midnight."""
    column = in_calendar(pl.col(name), dtype.time_unit if isinstance(dtype, pl.Datetime) else "d")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return in_calendar(column.cast(pl.Datetime("us")), "us").alias(name)


def event_dates(events: pl.DataFrame, where: str, today: date | None = None) -> tuple[date, date]:
    """First and last day of the events that have a time, tomorrow at the latest: one mistyped year must not move the calendar.

    `today`: by the clock (UTC) unless given; a day more leaves room for clocks east of it.

    Raises:
        SourceError: no event has a time up to then.
    """
    latest = (today or datetime.now(UTC).date()) + timedelta(days=1)
    day = pl.col(c.EVENT_TIME).dt.date()
    first, last = events.select(day.min().alias("first"), day.filter(day <= latest).max().alias("last")).row(
        0
    )
    if last is None:
        raise SourceError(
            f"{where}: no row has a readable {c.EVENT_TIME} up to {latest}; at least one event is needed."
        )
    return first, last


def need_no_gap(events: pl.DataFrame, where: str, end: date) -> None:
    """Refuse rows far before the rest: they would move the first day, and every window with it, by years.

    Raises:
        SourceError: up to `end` more than `MAX_GAP_DAYS` days in a row have no event.
    """
    day = pl.col(c.EVENT_TIME).dt.date()
    per_day = events.filter(day <= end).group_by(day.alias("day")).agg(pl.len().alias("rows")).sort("day")
    gaps = per_day.with_columns(
        pl.col("day").shift(-1).alias("next"), pl.col("rows").cum_sum().alias("rows_before")
    ).filter((pl.col("next") - pl.col("day")).dt.total_days() > MAX_GAP_DAYS + 1)
    if gaps.height:
        last, _, following, rows = gaps.row(-1)
        raise SourceError(
            f"{where}: {rows:,} row(s) up to {last}, then none for more than {MAX_GAP_DAYS} days until {following}. Correct the "
            f"{c.EVENT_TIME} of the rows before the gap, or take them out; a calendar may not have such a hole."
        )


def need_folder(path: Path | None, source: str, what: str) -> Path:
    """`path` when it is a folder.

    Raises:
        SourceError: no path was given, or it is no folder.
    """
    if path is None:
        raise SourceError(f"source {source} needs --path DIR, a folder with {what}.")
    if not path.is_dir():
        raise SourceError(f"source {source}: {path} is not a folder; a folder with {what} is needed.")
    return path


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet or CSV file as it is; the values of a CSV as text, so that an id like 007 keeps its zeros.

    Raises:
        SourceError: it is not there, of another kind, not readable (as a CSV in another encoding than UTF-8 or with other
            separators than commas is), or a CSV that names one of the project's columns twice; the message says which.
    """
    if not path.is_file():
        raise SourceError(f"{path} does not exist, or is no file; needed a .parquet or .csv file.")
    if path.suffix not in {".parquet", ".csv"}:
        raise SourceError(f"{path} ends in {path.suffix or 'nothing'}; needed a .parquet or .csv file.")
    is_csv = path.suffix == ".csv"
    try:
        if not is_csv:
            return pl.read_parquet(path)
        frame = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN_CHARACTERS]
        if is_csv:
            reason = _csv_hint(path) or f"{reason}; needed is UTF-8 text, quotes in pairs"
        raise SourceError(f"{path} is not a readable {path.suffix[1:]} table: {reason}") from error
    is_odd = frame.width == 1 or "\x00" in frame.columns[0]
    if is_odd and (hint := _csv_hint(path)):
        raise SourceError(f"{path} is not a readable csv table: {hint}")
    need_once(frame, path, _OURS)
    return frame


def need_once(frame: pl.DataFrame, file: Path, names: Iterable[str]) -> None:
    """Refuse a CSV that has one of the columns `names` twice; others, such as the unnamed ones of spreadsheets, may be.

    Raises:
        SourceError: one is there twice; the message names it.
    """
    there = set(frame.columns).intersection(names)
    if twice := [name for name in map(_first_of, frame.columns) if name and name in there]:
        raise SourceError(f"{file}: column {twice[0]} is there twice; which one counts? Keep one of them.")


def _csv_hint(path: Path) -> str:
    """What an export of a spreadsheet often has that is not read here; "" where it is nothing of it."""
    with path.open("rb") as file:
        head = file.readline(1 << 16)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "its text is UTF-16; save it as UTF-8."
        file.seek(0)
        try:
            for line in file:
                line.decode()
        except UnicodeDecodeError as error:
            return (
                f"its text is not UTF-8 ({error.object[:60]!r}); save it as UTF-8 (iconv -f cp1252 -t utf-8)."
            )
    text = head.decode(errors="replace")
    mark = max(";\t|", key=text.count)
    if mark in text and "," not in text:
        return f"its columns are parted by {mark!r}; needed are commas, and numbers with a decimal point."
    return ""


def _first_of(name: str) -> str:
    """The name that polars gave the first column of a CSV where it calls a later one of that name `name`; "" elsewhere."""
    match = re.fullmatch(r"(.+)_duplicated_\d+", name, re.DOTALL)
    return match[1] if match else ""


def told_columns(frame: pl.DataFrame) -> str:
    """The names of the frame's columns for a message, the first ones of many."""
    names = [name[:_SHOWN_CHARACTERS] for name in frame.columns[:_SHOWN_COLUMNS]]
    more = f" and {frame.width - len(names):,} more" if frame.width > len(names) else ""
    return ", ".join(names) + more


def need_plain(frame: pl.DataFrame, file: Path, names: Iterable[str]) -> None:
    """Refuse lists, records and bytes where a plain value is needed.

    Raises:
        SourceError: a column holds such; the message names it.
    """
    for name in names:
        if (dtype := frame.schema[name]).is_nested() or dtype in (pl.Binary, pl.Object):
            raise SourceError(f"{file}, column {name}: {dtype} arrived; one plain value a row is needed.")
