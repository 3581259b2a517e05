"""Your own data: events, items and users as Parquet or CSV files in one folder, with the contracts' column names.

Files: events.* (needed: user_id, item_id, event_time; optional: event_type, session_id, quantity, price, query_text),
items.* (needed: item_id and at least one of title, item_type, category; optional: department, brand, maker, size),
users.* (optional file: user_id and any profile columns). Optional item_id_vectors.parquet and
item_image_vectors.parquet: item_id, vector. Optional offers.* and offer_items.* (`offer_files`). Other columns are ignored. A null or unparsable value of one event is
left null here and quarantined later; a file that is wrong as a whole is a `SourceError`.
"""

from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.data.events import POSITIVE_TYPES
from sigma_core.data.offers import Offers
from sigma_core.data.sources.base import (
    PRODUCT_COLUMNS,
    SourceError,
    Vectors,
    calendar_times,
    event_dates,
    in_calendar,
    need_folder,
    need_no_gap,
    need_once,
    need_plain,
    product_master,
    raw_events,
    read_table,
    told_columns,
)
from sigma_core.data.sources.offer_files import OFFER_ITEMS, OFFERS, read_offers

READY_PHRASE: Final = (
    "profile"  # a users column of this name is a phrase already; others are said as "name value"
)
_SUFFIXES: Final = (".parquet", ".csv")
_TIME_FORMATS: Final = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
)
_ZONED_FORMATS: Final = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M%:z")
_OFFSET: Final = r"T?\d{2}:\d{2}\S*\s?[+-](?:0[1-9]|1\d|00:?[1-9])(?::?\d{2})?$"  # of a time that is not UTC
_NAMES_OF_NOTHING: Final = (
    "nan",
    "none",
    "null",
    "<na>",
    "nat",
)  # what a missing value becomes when it is made text
TOLD_TIMES: Final = (
    "2017-10-23, 2017-10-23 18:05, 2017-10-23T18:05:00 and, with a zone, 2017-10-23T18:05:00Z or +02:00"
)
"""What `_TIME_FORMATS` and times with a zone look like."""


class Tabular:
    """A folder of tables; construction checks that the files are there and reads none.

    Raises:
        SourceError: no folder, or events.* or items.* is missing or there twice.
    """

    name = "tabular"

    def __init__(self, path: Path | None) -> None:
        self._folder = need_folder(path, self.name, "events.parquet|csv and items.parquet|csv")
        self._events_file = self._find("events", needed=True)
        self._items_file = self._find("items", needed=True)
        self._users_file = self._find("users", needed=False)
        self._raw: pl.DataFrame | None = None
        self._report: dict[str, int] = {}

    def events(self) -> pl.DataFrame:
        """Raw events; times with a zone become UTC, and so do their days; a date alone is midnight, an absent event type a purchase."""
        if self._raw is None:
            self._raw = self._read_events(_need(self._events_file))
        return self._raw

    def report(self) -> dict[str, int]:
        """What a reader may have read otherwise than it was meant, by what it is; empty where nothing was. Reads the events."""
        self.events()
        return self._report

    def products(self) -> pl.DataFrame:
        """The product master; an item may be there once, and must say something about itself in some column."""
        file = _need(self._items_file)
        frame = read_table(file)
        _need_columns(frame, file, (c.ITEM_ID,))
        words = [name for name in (c.TITLE, c.ITEM_TYPE, c.CATEGORY) if name in frame.columns]
        if not words:
            raise SourceError(
                f"{file}: none of the columns {c.TITLE}, {c.ITEM_TYPE}, {c.CATEGORY} is there (arrived: "
                f"{told_columns(frame)}); at least one is needed to describe an item."
            )
        kept = [name for name in PRODUCT_COLUMNS if name in frame.columns]
        items = product_master(frame.select(_ids(frame, c.ITEM_ID, file), *kept))
        _need_unique(items, c.ITEM_ID, file)
        return items.sort(c.ITEM_ID)

    def users(self) -> pl.DataFrame:
        """USER_ID and the profile columns as phrases ("age 25-34"); no rows when there is no users file."""
        if self._users_file is None:
            return pl.DataFrame(schema={c.USER_ID: pl.String})
        frame = read_table(self._users_file)
        _need_columns(frame, self._users_file, (c.USER_ID,))
        need_once(frame, self._users_file, frame.columns)  # here every column says something
        need_plain(frame, self._users_file, frame.columns)
        users = frame.select(
            _ids(frame, c.USER_ID, self._users_file),
            *(_phrase(frame, name) for name in frame.columns if name != c.USER_ID),
        )
        _need_unique(users, c.USER_ID, self._users_file)
        return users

    def date_range(self) -> tuple[date, date]:
        """First and last day with an event; rows far before the rest are refused (`need_no_gap`), for they are often mistyped."""
        dates = event_dates(self.events(), str(self._events_file))
        need_no_gap(self.events(), str(self._events_file), dates[1])
        return dates

    def fingerprint(self) -> str:
        """Digest of the bytes of all tables."""
        digest = blake2b(digest_size=16)
        for file in sorted(f for f in self._folder.iterdir() if f.suffix in _SUFFIXES):
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                while block := handle.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def id_vectors(self) -> Vectors | None:
        """item_id_vectors.parquet: your own collaborative vectors, instead of ALS."""
        return _read_vectors(self._folder / "item_id_vectors.parquet")

    def image_vectors(self) -> Vectors | None:
        """item_image_vectors.parquet."""
        return _read_vectors(self._folder / "item_image_vectors.parquet")

    def offers(self) -> Offers:
        """offers.* and offer_items.*: what was put forward to whom, and when."""
        files = (self._find(OFFERS, needed=False), self._find(OFFER_ITEMS, needed=False))
        return read_offers(*files, read_table, self._folder)

    def _find(self, table: str, *, needed: bool) -> Path | None:
        found = [self._folder / f"{table}{s}" for s in _SUFFIXES if (self._folder / f"{table}{s}").exists()]
        if len(found) > 1:
            raise SourceError(f"{self._folder} holds both {found[0].name} and {found[1].name}; keep one.")
        if not found and needed:
            here = ", ".join(sorted(f.name for f in self._folder.iterdir())) or "nothing"
            raise SourceError(f"{self._folder} holds {here}; {table}.parquet or {table}.csv is needed.")
        return found[0] if found else None

    def _read_events(self, file: Path) -> pl.DataFrame:
        frame = read_table(file)
        _need_columns(frame, file, (c.USER_ID, c.ITEM_ID, c.EVENT_TIME))
        texts = [name for name in (c.EVENT_TYPE, c.QUERY_TEXT) if name in frame.columns]
        need_plain(frame, file, texts)
        columns = [
            _ids(frame, c.USER_ID, file),
            _ids(frame, c.ITEM_ID, file),
            _times(frame, file),
            *(_ids(frame, name, file) for name in (c.SESSION_ID,) if name in frame.columns),
            *map(_text, texts),
            *(_number(frame, name, file) for name in (c.QUANTITY, c.PRICE) if name in frame.columns),
        ]
        rows = raw_events(frame.select(columns)).with_columns(
            pl.col(c.EVENT_TYPE).fill_null(POSITIVE_TYPES[0])
        )
        types = rows[c.EVENT_TYPE].unique().sort().to_list()
        if rows.height and not set(types) & set(POSITIVE_TYPES):
            raise SourceError(
                f"{file}, column {c.EVENT_TYPE}: only {', '.join(types)} arrived; rows of type "
                f"{' or '.join(POSITIVE_TYPES)} are needed, they are what is recommended. Where nothing is sold, what was "
                "read or watched is a purchase."
            )
        self._report = _doubts(frame, rows)
        return rows


def _need(file: Path | None) -> Path:
    assert file is not None, "the constructor found the file"
    return file


def _need_columns(frame: pl.DataFrame, file: Path, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise SourceError(
            f"{file}: column {', '.join(missing)} is missing; arrived: {told_columns(frame)}; "
            f"needed: {', '.join(names)}."
        )


def _need_unique(frame: pl.DataFrame, name: str, file: Path) -> None:
    if frame[name].null_count():
        raise SourceError(
            f"{file}, column {name}: {frame[name].null_count()} empty values; every row needs one."
        )
    twice = frame.filter(pl.col(name).is_duplicated())
    if twice.height:
        raise SourceError(
            f"{file}, column {name}: {twice.item(0, name)!r} is there twice; one row for each is needed."
        )


def _ids(frame: pl.DataFrame, name: str, file: Path) -> pl.Expr:
    """An id column as text; blank is null."""
    dtype = frame.schema[name]
    if not (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        hint = (
            " (whole numbers with gaps become Float64; write them as text or Int64)"
            if dtype.is_float()
            else ""
        )
        raise SourceError(
            f"{file}, column {name}: {dtype} arrived; text or whole numbers are needed for an id{hint}."
        )
    return _text(name)


def _text(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).str.strip_chars().replace("", None)


def _phrase(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A profile column as it is said; NaN is nothing to say."""
    value = _text(name)
    if frame.schema[name].is_float():
        value = pl.when(pl.col(name).is_not_nan()).then(value)
    return value if name == READY_PHRASE else (pl.lit(f"{name.replace('_', ' ')} ") + value).alias(name)


def _times(frame: pl.DataFrame, file: Path) -> pl.Expr:
    """Event times as naive microseconds; null where a value cannot be read, or is of no year from 1 to 9999."""
    dtype, column = frame.schema[c.EVENT_TIME], pl.col(c.EVENT_TIME)
    if isinstance(dtype, pl.Datetime | pl.Date | pl.Null):
        return calendar_times(c.EVENT_TIME, dtype)
    if dtype != pl.String:
        raise SourceError(
            f"{file}, column {c.EVENT_TIME}: {dtype} arrived; a timestamp or text like 2017-10-23 18:05:00 is needed."
        )
    plain = column.str.strip_chars().str.replace("Z$", "+00:00")
    with_t = plain.str.replace(r"^(\d{4}-\d{2}-\d{2}) ", "${1}T")
    readers = [plain.str.to_datetime(f, strict=False, time_unit="us") for f in _TIME_FORMATS]
    readers += [
        with_t.str.to_datetime(f, strict=False, time_unit="us").dt.replace_time_zone(None)
        for f in _ZONED_FORMATS
    ]
    times = in_calendar(pl.coalesce(*readers), "us").alias(c.EVENT_TIME)
    if frame.height and frame.select(times.is_null().all()).item():
        sample = frame[c.EVENT_TIME].drop_nulls().head(1).to_list()
        raise SourceError(
            f"{file}, column {c.EVENT_TIME}: no value can be read as a time (first: {sample[0] if sample else None!r}); "
            f"needed like {TOLD_TIMES}."
        )
    return times


def _doubts(frame: pl.DataFrame, rows: pl.DataFrame) -> dict[str, int]:
    """Counts of what may be meant otherwise: times of another zone than UTC, and ids that are a missing value's name."""
    given, dtype = pl.col(c.EVENT_TIME), frame.schema[c.EVENT_TIME]
    own_day, has_zone = pl.lit(None, pl.Date), pl.lit(False)
    if dtype == pl.String:
        text = given.str.strip_chars()
        own_day, has_zone = (
            text.str.head(10).str.to_date("%Y-%m-%d", strict=False),
            text.str.contains(_OFFSET),
        )
    elif isinstance(dtype, pl.Datetime) and dtype.time_zone not in (None, "UTC"):
        own_day, has_zone = in_calendar(given, dtype.time_unit).dt.date(), given.is_not_null()
    day = rows[c.EVENT_TIME].dt.date()
    zoned, moved = frame.select(
        has_zone.sum().alias("zoned"), (has_zone & (own_day != day)).sum().alias("moved")
    ).row(0)
    lost = pl.any_horizontal(pl.col(c.USER_ID, c.ITEM_ID).str.to_lowercase().is_in(_NAMES_OF_NOTHING))
    counts = {
        "times_with_a_zone_turned_into_utc": zoned,
        "times_filed_under_another_day_in_utc_than_by_their_own_clock": moved,
        "ids_that_say_nan_none_or_null": rows.select(lost.sum()).item(),
    }
    return {name: count for name, count in counts.items() if count}


def _number(frame: pl.DataFrame, name: str, file: Path) -> pl.Expr:
    """A numeric column, null where it is NaN or infinite; text that is no number is an error that names it."""
    dtype = frame.schema[name]
    if dtype == pl.String:
        parsed = _text(name).cast(pl.Float64, strict=False)
        lost = frame.with_row_index("row").filter(_text(name).is_not_null() & parsed.is_null())
        if lost.height:
            raise SourceError(
                f"{file}, column {name}, row {lost.item(0, 'row')}: {lost.item(0, name)!r} arrived; a number or "
                "nothing is needed, with a decimal point and no sign of a currency (1099.50)."
            )
        return _finite(parsed)
    if not (dtype.is_numeric() or dtype == pl.Null):
        raise SourceError(f"{file}, column {name}: {dtype} arrived; numbers are needed.")
    return _finite(pl.col(name).cast(pl.Float64))


def _finite(numbers: pl.Expr) -> pl.Expr:
    """NaN and infinity are no quantity and no price: null, like a value that is missing. NaN is above every bound."""
    return pl.when(numbers.is_finite()).then(numbers).name.keep()


def _read_vectors(file: Path) -> Vectors | None:
    """Item ids (sorted) and float32 vectors [N, d] of a vector table; None when the file is not there."""
    if not file.exists():
        return None
    frame = read_table(file)
    _need_columns(frame, file, (c.ITEM_ID, "vector"))
    table = frame.select(_ids(frame, c.ITEM_ID, file), "vector").sort(c.ITEM_ID)
    _need_unique(table, c.ITEM_ID, file)
    if not isinstance(table.schema["vector"], pl.List | pl.Array):
        raise SourceError(
            f"{file}, column vector: {table.schema['vector']} arrived; a list of numbers is needed."
        )
    try:
        listed = table["vector"].cast(pl.List(pl.Float32))
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{file}, column vector: {table.schema['vector']} arrived; a list of numbers is needed."
        ) from error
    widths = listed.list.len().unique().to_list()
    if len(widths) != 1 or not widths[0]:
        raise SourceError(
            f"{file}, column vector: lengths {sorted(map(str, widths))} arrived; one length is needed."
        )
    vectors = listed.explode().to_numpy().reshape(-1, widths[0]).astype(np.float32)
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise SourceError(
            f"{file}, column vector: item {table.item(bad, c.ITEM_ID)!r} holds NaN or infinity."
        )
    return table[c.ITEM_ID].to_list(), vectors
