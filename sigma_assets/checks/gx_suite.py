"""Run the expectations of one contract table on one frame with Great Expectations.

The only module that imports GX, and only when a check runs (the import takes 3 s). Polars frames become pandas frames
here, with the needed columns alone. It says what GX found and decides nothing: severities, missing columns and partitions
are the business of `contract.py`. No project folder, no data docs, no network.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import polars as pl

from sigma_core.contracts import ContractError, Expectation

NUM_EXAMPLES = 5  # failing rows kept of one expectation


@dataclass(frozen=True)
class Finding:
    """What GX says of one expectation.

    Attributes:
        met: the expectation holds (with `mostly`, for enough rows).
        error: why it could not be evaluated; None when it could.
        result: GX's own figures, JSON values only (element_count, unexpected_count, observed_value ...).
        rows: positions of the unexpected rows; only when they were asked for.
    """

    met: bool
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    rows: tuple[int, ...] = ()


def run_expectations(
    expectations: Sequence[Expectation],
    frame: pl.DataFrame,
    *,
    key: Sequence[str] = (),
    all_rows: bool = False,
) -> dict[str, Finding]:
    """Finding of each expectation by its id, from one GX run over `frame` and one more over what does not hold.

    Figures are there for what does not hold and for what may hold mostly; a plain success has none.

    Args:
        expectations: each reads only columns that `frame` has.
        key: columns whose values are shown with a failing row.
        all_rows: report the position of every unexpected row instead of a few rows' keys.

    Raises:
        ContractError: an expectation type that GX does not know, or arguments that it refuses.
    """
    if not expectations:
        return {}
    used = {name for expectation in expectations for name in expectation.columns()} | set(key)
    pandas_frame = frame.select(name for name in frame.columns if name in used).to_pandas()
    if not used:  # a row count alone: GX counts a frame's rows, which needs a column
        pandas_frame = pl.DataFrame({"row": range(frame.height)}).to_pandas()
    detailed: dict[str, Any] = {"result_format": "SUMMARY", "partial_unexpected_count": NUM_EXAMPLES}
    if all_rows:
        detailed["result_format"] = "COMPLETE"
    elif key:
        detailed["unexpected_index_column_names"] = list(key)
    # GX takes twice as long to say why than to say whether; almost always everything holds.
    findings = _run(expectations, pandas_frame, {"result_format": "BOOLEAN_ONLY"}, all_rows)
    open_ones = [e for e in expectations if not findings[e.meta.id].met or "mostly" in e.kwargs]
    return findings | (_run(open_ones, pandas_frame, detailed, all_rows) if open_ones else {})


def _run(
    expectations: Sequence[Expectation], pandas_frame: Any, result_format: Mapping[str, Any], all_rows: bool
) -> dict[str, Finding]:
    batch = _batch_definition().get_batch(batch_parameters={"dataframe": pandas_frame})
    report = batch.validate(_suite(expectations), result_format=dict(result_format))
    findings = {r.expectation_config.meta["id"]: _finding(r, all_rows) for r in report.results}
    if lost := [e.meta.id for e in expectations if e.meta.id not in findings]:
        raise ContractError(
            f"GX returned no result for {lost}; {len(report.results)} of {len(expectations)} arrived."
        )
    return findings


@cache
def _batch_definition() -> Any:
    """One in-memory GX context for the process; frames are handed over per batch."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.execution_engine import pandas_execution_engine

    # GX hashes every row of a batch for a mark that nobody reads
    pandas_execution_engine.hash_pandas_dataframe = lambda _: ""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("contracts").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("whole")


def _suite(expectations: Sequence[Expectation]) -> Any:
    """The GX suite. GX logs an unknown type and drops it, which would make a typo pass; here it raises."""
    from great_expectations.core import ExpectationSuite

    log = logging.getLogger("great_expectations.core.expectation_suite")
    before, log.disabled = log.disabled, True  # the traceback it prints is replaced by the error below
    try:
        suite = ExpectationSuite(
            name="contract",
            expectations=[
                {
                    "type": e.type,
                    "kwargs": dict(e.kwargs),
                    "severity": e.severity,
                    "meta": e.meta.model_dump(),
                }
                for e in expectations
            ],
        )
    finally:
        log.disabled = before
    kept = {e.meta["id"] for e in suite.expectations}
    if dropped := [f"{e.meta.id} ({e.type})" for e in expectations if e.meta.id not in kept]:
        raise ContractError(
            f"GX does not know {len(dropped)} of {len(expectations)} expectations: {', '.join(dropped)}. "
            "Correct the type or its arguments in data_contracts/."
        )
    return suite


def _finding(result: Any, all_rows: bool) -> Finding:
    error = _error(result.exception_info)
    rows = tuple(int(i) for i in result.result.get("unexpected_index_list") or ()) if all_rows else ()
    figures = {key: plain(value) for key, value in result.result.items() if key in _FIGURES}
    return Finding(bool(result.success) and error is None, error, figures, rows)


_FIGURES = (
    "element_count",
    "observed_value",
    "unexpected_count",
    "unexpected_percent",
    "missing_count",
    "partial_unexpected_list",
    "partial_unexpected_index_list",
    "details",
)


def _error(info: Any) -> str | None:
    """The exception GX swallowed; it is a flat dict, or one dict per metric."""
    if not isinstance(info, dict):
        return None
    flat = (
        [info] if "raised_exception" in info else [part for part in info.values() if isinstance(part, dict)]
    )
    messages = [str(part.get("exception_message")) for part in flat if part.get("raised_exception")]
    return "; ".join(messages) or None


def plain(value: Any) -> Any:
    """`value` as JSON values: numpy scalars become Python's, NaN becomes null, everything unknown its text."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(part) for part in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def check_suite(expectations: Sequence[Expectation]) -> None:
    """Let GX take the expectations without any data.

    Raises:
        ContractError: an expectation type that GX does not know, or arguments that it refuses.
    """
    _batch_definition()  # a suite needs a context
    _suite(expectations)
