"""`sigma contracts check`: what a file would break, said before anyone ingests it.

Two kinds of files: raw ones that a source will read (`events`, `items`, `users`; also `interaction_events` when the file is raw), judged by
what ingestion would do with them, and published tables, judged by their contract. Writes nothing. Our choice.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Any, Final

import polars as pl

from sigma_assets.checks.contract import CheckOutcome, validate, validate_range
from sigma_assets.checks.gx_suite import check_suite
from sigma_assets.checks.semantic import facts
from sigma_core import columns as c
from sigma_core.contracts import Column, Contract, ContractError, Table, contract_names, load_contract
from sigma_core.data.events import InteractionEvents, clean_events
from sigma_core.data.item_text import BASE_TEXT, MAX_TEXT_CHARS, add_base_words, is_long
from sigma_core.data.sources.base import SourceError, event_dates, need_no_gap, product_master, read_table
from sigma_core.data.sources.tabular import TOLD_TIMES, Tabular

RAW_TABLES: Final = ("events", "items", "users")
MOST_DAYS: Final = 3  # that are told one by one when the same is wrong on each
NUM_EXAMPLES: Final = 5
_PUBLISHED_ONLY: Final = {c.EVENT_DATE, c.SOURCE_ROW}  # what a raw events file lacks
_WORDS: Final = (c.TITLE, c.ITEM_TYPE, c.CATEGORY)
_SHOWN: Final = (c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.QUANTITY)
_READ: Final = {"bad_time": f"; read are {TOLD_TIMES}"}


@dataclass(frozen=True)
class Violation:
    """One thing wrong with a file. ERROR: it would not be ingested as it is; WARN: some of it would be left out."""

    severity: str
    where: str
    what: str
    examples: tuple[str, ...] = ()

    def text(self) -> str:
        """For a terminal: a line, and one for each example."""
        lines = [f"{self.severity:<5} {self.where}: {self.what}"]
        return "\n".join([*lines, *(f"        {example}" for example in self.examples)])


def check_contracts() -> int:
    """Read every contract and let Great Expectations take its expectations; returns how many contracts there are.

    Raises:
        ContractError: one is no contract, or names an expectation that does not exist; the message says which.
    """
    for name in contract_names():
        contract = load_contract(name)
        for table_name, table in contract.tables.items():
            try:
                check_suite(table.expectations)
            except ContractError as error:
                raise ContractError(f"{name}, table {table_name}: {error}") from error
    return len(contract_names())


def check_file(table: str, path: Path, known_items: pl.Series | None = None) -> list[Violation]:
    """Everything wrong with the file as `table`, errors first; empty when it can be used as it is.

    Args:
        table: events, items, users, or a table of a contract (`item_catalog`, or `asset.table` where an asset has several).
        path: .parquet or .csv.
        known_items: ids of the product master, for events; None: every item of the file counts as known.

    Raises:
        ContractError: no such table, or its contract is broken itself.
        SourceError: the file is not there or not readable as a table.
    """
    frame = read_table(path)
    is_raw_events = table == "interaction_events" and not set(frame.columns) >= _PUBLISHED_ONLY
    if table == "events" or is_raw_events:
        found = _check_events(path, frame, known_items)
    elif table == "items":
        found = _check_items(frame)
    elif table == "users":
        found = _check_users(path)
    else:
        found = _check_published(table, frame, is_text=path.suffix == ".csv")
    return sorted(found, key=lambda one: one.severity != "ERROR")


# ------------------------------------------------------------------------------------------- raw files
def _check_events(path: Path, frame: pl.DataFrame, known_items: pl.Series | None) -> list[Violation]:
    with tempfile.TemporaryDirectory() as folder:
        source = _source_of(Path(folder), events=path)
        try:
            raw, doubts = source.events(), source.report()
        except SourceError as error:
            return [Violation("ERROR", "events", str(error).replace(f"{folder}/", ""))]
    known = raw[c.ITEM_ID].drop_nulls() if known_items is None else known_items
    gap: list[Violation] = []
    try:
        first, last = event_dates(raw, path.name)
    except SourceError as error:
        return [Violation("ERROR", "events", str(error))]
    try:
        need_no_gap(raw, path.name, last)
    except SourceError as error:
        gap = [Violation("WARN", "events", str(error))]  # a part of a table may have one
    dates = raw[c.EVENT_TIME].dt.date()
    days = dates.filter(dates.is_between(first, last)).unique().sort().to_list()
    good, refused = clean_events(raw, known, datetime.combine(days[-1], time.max))
    found = [Violation("WARN", "events", f"{n:,} {what.replace('_', ' ')}") for what, n in doubts.items()]
    found += gap + [
        _refused(str(reason[0]), rows[c.SOURCE_ROW], frame)
        for reason, rows in refused.group_by(c.REASON, maintain_order=True)
    ]
    tables = facts("interaction_events", InteractionEvents(good, refused), days=days, known_items=known)
    by_day = validate_range(load_contract("interaction_events"), tables, c.EVENT_DATE, days)
    return found + _by_id(by_day)


def _source_of(folder: Path, **files: Path) -> Tabular:
    """A source in an empty folder of which only the files named are asked for."""
    pl.DataFrame({c.ITEM_ID: [], c.TITLE: []}).write_parquet(folder / "items.parquet")
    if "events" not in files:
        (folder / "events.csv").touch()
    for name, file in files.items():
        (folder / f"{name}{file.suffix}").symlink_to(file.resolve())
    return Tabular(folder)


def _by_id(by_day: Mapping[str, Sequence[CheckOutcome]]) -> list[Violation]:
    """What does not hold, by day; in one violation, with the first day's examples, where it is the same on many days."""
    days: dict[str, list[str]] = {}
    for day, outcomes in by_day.items():
        for outcome in outcomes:
            if not outcome.passed:
                days.setdefault(outcome.id, []).append(day)
    found = []
    for day, outcomes in by_day.items():
        for outcome in outcomes:
            same = days.get(outcome.id, [])
            if len(same) <= MOST_DAYS:
                found += _violations([outcome], f" on {day}")
            elif day == same[0]:
                found += _violations([outcome], f" on {len(same)} days, the first {day}")
    return found


def _check_users(path: Path) -> list[Violation]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _source_of(Path(folder), users=path).users()
        except SourceError as error:
            return [Violation("ERROR", "users", str(error).replace(f"{folder}/", ""))]
    return []


def _refused(reason: str, rows: pl.Series, frame: pl.DataFrame) -> Violation:
    """Rows that ingestion would put aside, shown as they stand in the file: a time that cannot be read is null after reading."""
    first = rows.head(NUM_EXAMPLES)
    here = [name for name in _SHOWN if name in frame.columns]
    shown = frame[first.to_list()].select(first.alias(c.SOURCE_ROW), *here)
    examples = tuple(_row(row) for row in shown.iter_rows(named=True))
    what = f"{len(rows):,} rows would be put aside: {reason}{_READ.get(reason, '')}"
    return Violation("WARN", "events", what, examples)


def _check_items(frame: pl.DataFrame) -> list[Violation]:
    words = [name for name in _WORDS if name in frame.columns]
    if c.ITEM_ID not in frame.columns or not words:
        arrived = ", ".join(frame.columns)
        return [
            Violation(
                "ERROR", "items", f"item_id and one of {', '.join(_WORDS)} are needed; arrived: {arrived}"
            )
        ]
    try:
        product_master(frame)
    except SourceError as error:
        return [Violation("ERROR", "items", str(error))]
    rows = frame.with_row_index("row").with_columns(
        pl.col(name).cast(pl.String).str.strip_chars().replace("", None) for name in (c.ITEM_ID, *words)
    )
    empty = pl.col(c.ITEM_ID).is_null()
    problems = (
        ("ERROR", "without an item_id", empty),
        ("ERROR", "with an item_id that comes twice", ~empty & pl.col(c.ITEM_ID).is_duplicated()),
        ("WARN", f"without any of {', '.join(words)}", pl.all_horizontal(pl.col(w).is_null() for w in words)),
    )
    found = []
    for severity, what, expression in problems:
        bad = rows.filter(expression)
        if bad.height:
            shown = bad.select("row", c.ITEM_ID, *words).head(NUM_EXAMPLES)
            examples = tuple(_row(row) for row in shown.iter_rows(named=True))
            found.append(Violation(severity, "items", f"{bad.height:,} rows {what}", examples))
    return found + _long_texts(frame)


def _long_texts(frame: pl.DataFrame) -> list[Violation]:
    """Items whose words, put together as the catalog does, are more than an encoder is given."""
    rows = add_base_words(product_master(frame)).with_row_index("row").filter(is_long(BASE_TEXT))
    if rows.is_empty():
        return []
    text = pl.col(BASE_TEXT)
    shown = rows.select(
        "row", c.ITEM_ID, text.str.len_chars().alias("characters"), text.str.head(60).alias("begins")
    ).head(NUM_EXAMPLES)
    what = f"{rows.height:,} rows with over {MAX_TEXT_CHARS} characters of words: what the encoder reads is cut there"
    return [Violation("WARN", "items", what, tuple(_row(row) for row in shown.iter_rows(named=True)))]


# ------------------------------------------------------------------------------------ published tables
def _check_published(table: str, frame: pl.DataFrame, *, is_text: bool) -> list[Violation]:
    asset, _, name = table.partition(".")
    if asset not in contract_names():
        raise ContractError(f"no table {asset!r}; there are {', '.join((*RAW_TABLES, *contract_names()))}.")
    contract = load_contract(asset)
    name = name or (asset if asset in contract.tables else next(iter(contract.tables)))
    if name not in contract.tables:
        raise ContractError(f"{asset} has the tables {', '.join(contract.tables)}, {name!r} arrived.")
    declared = contract.tables[name]
    found: list[Violation] = []
    if is_text:
        frame, found = _typed(frame, declared, name)
    reduced, skipped = _without_computed(declared, set(frame.columns))
    one = Contract.model_construct(**{**dict(contract), "tables": {name: reduced}})
    found += _violations(validate(one, {name: frame}))
    if skipped:
        said = (
            f"{len(skipped)} expectations were not checked; they need columns that only the pipeline computes"
        )
        found.append(Violation("INFO", name, f"{said}: {', '.join(skipped)}"))
    return found


def _typed(frame: pl.DataFrame, declared: Table, name: str) -> tuple[pl.DataFrame, list[Violation]]:
    """A CSV's text as the declared types; a value that is none of its type is a violation and becomes null."""
    found = []
    for column in declared.columns:
        dtype = _SIMPLE.get(column.type)
        if column.name not in frame.columns or dtype is None:
            continue
        text = pl.col(column.name).str.strip_chars().replace("", None)
        value = _parsed(text, dtype)
        rows = frame.with_row_index("row").filter(text.is_not_null() & value.is_null())
        if rows.height:
            shown = rows.select("row", column.name).head(NUM_EXAMPLES)
            examples = tuple(_row(row) for row in shown.iter_rows(named=True))
            what = f"{rows.height:,} values of {column.name} are no {column.type}"
            found.append(Violation("ERROR", name, what, examples))
        frame = frame.with_columns(value.alias(column.name))
    return frame, found


def _parsed(text: pl.Expr, dtype: Any) -> pl.Expr:
    """The text as the type, null where it is none of it."""
    if dtype == pl.Boolean:
        words = {"true": True, "false": False}
        return text.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    if dtype == pl.Date:
        return text.str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.Datetime("us"):
        return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us")
    return text.cast(dtype, strict=False)


_SIMPLE: Final[dict[str, Any]] = {
    "String": pl.String,
    "Int32": pl.Int32,
    "Int64": pl.Int64,
    "Float32": pl.Float32,
    "Float64": pl.Float64,
    "Boolean": pl.Boolean,
    "Date": pl.Date,
    "Datetime(us)": pl.Datetime("us"),
}


def _without_computed(declared: Table, there: set[str]) -> tuple[Table, list[str]]:
    """The table without computed columns that the file lacks; and the expectations that go with them."""

    def stays(column: Column) -> bool:
        return not column.computed or column.name in there

    gone = {column.name for column in declared.columns if not stays(column)}
    kept = tuple(e for e in declared.expectations if not gone & set(e.columns()))
    skipped = [e.meta.id for e in declared.expectations if gone & set(e.columns())]
    update = {
        "columns": tuple(column for column in declared.columns if stays(column)),
        "expectations": kept,
        "key": tuple(name for name in declared.key if name not in gone),
    }
    return declared.model_copy(update=update), skipped


def _violations(outcomes: Sequence[CheckOutcome], when: str = "") -> list[Violation]:
    return [
        Violation(
            outcome.severity,
            outcome.id + when,
            outcome.description,
            tuple(_row(example) for example in outcome.details.get("examples", [])[:NUM_EXAMPLES]),
        )
        for outcome in outcomes
        if not outcome.passed
    ]


def _row(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values)
    return ", ".join(f"{name}={value}" for name, value in values.items())
