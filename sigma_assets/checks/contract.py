"""Contract -> checks: validate an artifact's frames against its contract, for one partition or for many at once.

`validate` and `validate_range` return plain `CheckOutcome`s; `check_specs` and `check_results` turn them into Dagster's
objects. Frames come from `semantic.facts`. Columns and their types are compared here with polars; everything else is a GX
expectation (`gx_suite.py`). A crash stays a crash: only what GX itself could not evaluate becomes a failed check.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from sigma_assets.checks.gx_suite import Finding, run_expectations
from sigma_core.contracts import ROW_COUNT, Contract, Expectation, Table

if TYPE_CHECKING:
    import dagster as dg

CHECK = "contract"  # blocking: what keeps a partition from being written
CHECK_WARNINGS = (
    "contract_warnings"  # travels along; separate, because automation waits for blocking checks to pass
)
ROWWISE = (
    "expect_column_values_",
    "expect_column_value_lengths_",
    "expect_column_pair_values_",
    "expect_compound_columns_",
    "expect_multicolumn_values_",
    "expect_select_column_values_",
)


@dataclass(frozen=True)
class CheckOutcome:
    """One expectation, checked.

    Attributes:
        id: `<table>.<expectation id>`.
        asset: the contract's name.
        passed: False when broken. An expectation of severity `info` always passes; `details["met"]` tells.
        severity: ERROR keeps the partition from being written, WARN travels along.
        description: one line for people: what was expected, what arrived.
        details: JSON values: table, expectation, kwargs, rows, and what applies of unexpected, observed, examples, error.
    """

    id: str
    asset: str
    passed: bool
    severity: Literal["ERROR", "WARN"]
    description: str
    details: dict[str, Any] = field(default_factory=dict)


def validate(contract: Contract, frames: Mapping[str, pl.DataFrame]) -> list[CheckOutcome]:
    """Outcomes of every expectation of the contract, in its order, each table led by its columns' check.

    Raises:
        ContractError: an expectation that GX does not know.
        ValueError: a frame whose table the contract does not name.
    """
    _refuse_unknown_tables(contract, frames)
    outcomes: list[CheckOutcome] = []
    for name, table in contract.tables.items():
        if name in frames:
            outcomes += _validate_table(contract.name, name, table, frames[name])
        else:
            said = f"table {name} is missing; arrived: {sorted(frames)}"
            outcomes.append(
                CheckOutcome(f"{name}.columns", contract.name, False, "ERROR", said, {"table": name})
            )
    return outcomes


def validate_range(
    contract: Contract,
    frames: pl.DataFrame | Mapping[str, pl.DataFrame],
    partition_column: str,
    partitions: Iterable[Any],
) -> dict[str, list[CheckOutcome]]:
    """`validate` for many partitions in one GX run a table; partition key -> outcomes.

    Rows are judged all together. Only partitions with a row that is unexpected anywhere are then validated again, each by
    itself, so `mostly`, uniqueness and examples mean the partition. Uniqueness over all partitions implies it in each.
    Row counts come from one group-by. A table with an expectation about the whole frame (a mean, a set of distinct values)
    is validated partition by partition.

    Args:
        contract: of the asset.
        frames: one frame a table; a bare frame is the table named like the contract. Each has `partition_column`.
        partition_column: holds the partition, as a date or as text.
        partitions: every partition that is to be published; one without rows is an empty frame.

    Raises:
        ContractError: an expectation that GX does not know.
        ValueError: rows of a partition that is not in `partitions`, or a frame of an unknown table.
    """
    by_table = {contract.name: frames} if isinstance(frames, pl.DataFrame) else dict(frames)
    _refuse_unknown_tables(contract, by_table)
    keys = [str(key) for key in partitions]
    outcomes: dict[str, list[CheckOutcome]] = {key: [] for key in keys}
    for name, table in contract.tables.items():
        if name not in by_table:
            raise ValueError(
                f"contract {contract.name}: table {name} is missing; arrived: {sorted(by_table)}."
            )
        frame = by_table[name].with_columns(pl.col(partition_column).cast(pl.String).alias(_PARTITION))
        for key, found in _validate_many(contract.name, name, table, frame, keys).items():
            outcomes[key] += found
    return outcomes


_PARTITION = "__partition__"


def failed_errors(outcomes: Iterable[CheckOutcome]) -> list[CheckOutcome]:
    """The outcomes that forbid writing the partition."""
    return [o for o in outcomes if not o.passed and o.severity == "ERROR"]


# ----------------------------------------------------------------------------------------- one table
def _validate_table(asset: str, name: str, table: Table, frame: pl.DataFrame) -> list[CheckOutcome]:
    columns = _columns_outcome(asset, name, table, frame)
    missing = set(columns.details.get("missing", ()))
    ready = [e for e in table.expectations if not missing & set(e.columns())]
    key = [column for column in table.key if column not in missing]
    findings = run_expectations(ready, frame, key=key)
    outcomes = [columns]
    for expectation in table.expectations:
        absent = sorted(missing & set(expectation.columns()))
        finding = (
            Finding(False, f"column {', '.join(absent)} is missing")
            if absent
            else findings[expectation.meta.id]
        )
        outcomes.append(_outcome(asset, name, expectation, finding, frame.height))
    return outcomes


def _columns_outcome(asset: str, name: str, table: Table, frame: pl.DataFrame) -> CheckOutcome:
    missing = [column.name for column in table.columns if column.name not in frame.columns]
    wrong = {
        column.name: {"needed": column.type, "arrived": type_name(frame.schema[column.name])}
        for column in table.columns
        if column.name in frame.columns and type_name(frame.schema[column.name]) != column.type
    }
    parts = [f"column {column} is missing" for column in missing]
    parts += [f"{column} needed {t['needed']}, arrived {t['arrived']}" for column, t in wrong.items()]
    said = f"{name}: {'; '.join(parts) or f'all {len(table.columns)} columns are there, typed as declared'}"
    details = {"table": name, "rows": frame.height, "missing": missing, "wrong_types": wrong}
    return CheckOutcome(f"{name}.columns", asset, not parts, "ERROR", said, details)


def type_name(dtype: Any) -> str:
    """A polars type as contracts write it: `String`, `Datetime(us)`, `List(Int32)`."""
    if isinstance(dtype, pl.List):
        return f"List({type_name(dtype.inner)})"
    if isinstance(dtype, pl.Datetime):
        return f"Datetime({dtype.time_unit})"
    return str(dtype)


def _outcome(asset: str, name: str, e: Expectation, finding: Finding, rows: int) -> CheckOutcome:
    figures = finding.result
    details: dict[str, Any] = {
        "table": name,
        "expectation": e.type,
        "kwargs": e.kwargs,
        "rows": rows,
        "met": finding.met,
    }
    details |= {
        key: figures[key]
        for key in ("observed_value", "unexpected_count", "unexpected_percent")
        if key in figures
    }
    if not finding.met:
        examples = figures.get("partial_unexpected_index_list") or figures.get("partial_unexpected_list")
        details |= {"examples": examples} if examples else {}
        details |= {"error": finding.error} if finding.error else {}
    crashed = finding.error is not None  # severity does not excuse what could not be checked
    severity: Literal["ERROR", "WARN"] = "ERROR" if crashed or e.severity == "critical" else "WARN"
    passed = finding.met or (e.severity == "info" and not crashed)
    return CheckOutcome(f"{name}.{e.meta.id}", asset, passed, severity, _said(name, e, details), details)


def _said(name: str, e: Expectation, details: Mapping[str, Any]) -> str:
    what = e.meta.why or f"{e.type.removeprefix('expect_')} {', '.join(e.columns())}".strip()
    if details["met"]:
        return f"{name}: {what}"
    if "error" in details:
        return f"{name}: {what}: could not be checked: {details['error']}"
    if "unexpected_count" in details:
        example = f", for example {details['examples'][0]}" if details.get("examples") else ""
        return f"{name}: {what}: {details['unexpected_count']} of {details['rows']} rows break it{example}"
    return f"{name}: {what}: observed {details.get('observed_value')}, needed {_bounds(e.kwargs)}"


def _bounds(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in kwargs.items() if not key.startswith("column"))


# ------------------------------------------------------------------------------------ many partitions
def _validate_many(
    asset: str, name: str, table: Table, frame: pl.DataFrame, keys: Sequence[str]
) -> dict[str, list[CheckOutcome]]:
    counts = dict(frame.group_by(_PARTITION).len().iter_rows())
    if stray := sorted(str(key) for key in counts.keys() - set(keys)):
        raise ValueError(
            f"{asset}.{name}: rows of {len(stray)} partitions nobody asked for (first: {stray[:5]})."
        )
    columns = _columns_outcome(asset, name, table, frame)
    rowwise = [e for e in table.expectations if e.type.startswith(ROWWISE)]
    whole = [e for e in table.expectations if e not in rowwise and e.type != ROW_COUNT]
    suspects = set(keys)
    if columns.passed and not whole:
        findings = run_expectations(rowwise, frame, all_rows=True)
        if not any(f.error for f in findings.values()):
            rows = sorted({row for f in findings.values() for row in f.rows})
            suspects = set(frame[_PARTITION].gather(rows).to_list())
    outcomes: dict[str, list[CheckOutcome]] = {}
    for key in keys:
        if key in suspects:
            part = frame.filter(pl.col(_PARTITION) == key).drop(_PARTITION)
            outcomes[key] = _validate_table(asset, name, table, part)
        else:
            outcomes[key] = [columns, *_clean_outcomes(asset, name, table, counts.get(key, 0), len(keys))]
    return outcomes


def _clean_outcomes(
    asset: str, name: str, table: Table, rows: int, num_partitions: int
) -> list[CheckOutcome]:
    """Outcomes of a partition in which no row is unexpected: only its row count is still open."""
    outcomes = []
    for e in table.expectations:
        met, figures = True, {"unexpected_count": 0, "unexpected_percent": 0.0}
        if e.type == ROW_COUNT:
            low, high = e.kwargs.get("min_value"), e.kwargs.get("max_value")
            met = (low is None or rows >= low) and (high is None or rows <= high)
            figures = {"observed_value": rows}
        outcome = _outcome(asset, name, e, Finding(met, None, figures), rows)
        outcome.details["validated_with_partitions"] = num_partitions
        outcomes.append(outcome)
    return outcomes


def _refuse_unknown_tables(contract: Contract, frames: Mapping[str, pl.DataFrame]) -> None:
    if unknown := sorted(frames.keys() - contract.tables.keys()):
        raise ValueError(
            f"contract {contract.name} has tables {sorted(contract.tables)}, arrived also {unknown}."
        )


# --------------------------------------------------------------------------------------------- Dagster
def check_specs(contract: Contract, partitions_def: Any = None) -> "list[dg.AssetCheckSpec]":
    """The Dagster checks of the contract's asset: `contract` (blocking) and, where it has warnings, `contract_warnings`."""
    import dagster as dg

    more: dict[str, Any] = {"partitions_def": partitions_def} if partitions_def is not None else {}
    said = "every critical expectation of the data contract holds; a broken one is not written"
    specs = [dg.AssetCheckSpec(CHECK, asset=contract.name, blocking=True, description=said, **more)]
    if contract.severities() & {"warning", "info"}:
        said = "expectations of the data contract that warn and travel along"
        specs.append(dg.AssetCheckSpec(CHECK_WARNINGS, asset=contract.name, description=said, **more))
    if contract.drift is not None:
        said = f"rows, nulls, prices and mix as on the {contract.drift.days} days before"
        specs.append(dg.AssetCheckSpec("drift", asset=contract.name, description=said, **more))
    return specs


def check_results(contract: Contract, outcomes: Sequence[CheckOutcome]) -> "list[dg.AssetCheckResult]":
    """One Dagster result for each check that `check_specs` announced. A WARN never blocks."""
    import dagster as dg

    groups = [(CHECK, "ERROR", dg.AssetCheckSeverity.ERROR)]
    if contract.severities() & {"warning", "info"}:
        groups.append((CHECK_WARNINGS, "WARN", dg.AssetCheckSeverity.WARN))
    results = []
    for check, severity, dagster_severity in groups:
        mine = [o for o in outcomes if o.severity == severity]
        failed = [o for o in mine if not o.passed]
        said = "; ".join(o.description for o in failed[:3]) or f"all {len(mine)} expectations hold"
        metadata: dict[str, Any] = {
            "expectations": len(mine),
            "failed": dg.MetadataValue.json([asdict(o) for o in failed]),
        }
        results.append(
            dg.AssetCheckResult(
                passed=not failed,
                asset_key=contract.name,
                check_name=check,
                severity=dagster_severity,
                description=said,
                metadata=metadata,
            )
        )
    return results
