"""A benchmark record as one HTML page that needs nothing else: headline figures, tables, drawings, settings. No network, no script.

What a verb shows first is in `page_sections.py`. The page shows what the JSON holds and computes nothing but where bars and intervals are drawn. jinja2 escapes every value. Our choice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2

from sigma_core.artifacts import write_bytes
from sigma_core.benchmarks.page_sections import sections_of

TEMPLATE: Final = Path(__file__).with_name("page.jinja")
BARS: Final = (
    "requests_per_second",
    "tokens_per_second",
    "examples_per_second",
    "ms",
    "seconds",
)  # the first there is drawn
LOW: Final = "low"  # a number followed by both is drawn as an interval
HIGH: Final = "high"
VERDICT: Final = "verdict"  # its cells, and an interval beside them, have the colour of the verdict
P_VALUES: Final = ("p", "p_holm")
LEAST_P: Final = 1e-4
MAX_ROWS: Final = 400
LEAST: Final = 5e-5  # smaller numbers are shown by their power of ten
OPEN_LEAVES: Final = 40  # a longer list is folded


def page_of(record: Mapping[str, Any], title: str = "") -> str:
    """The record's page. Numbers at its top level are headlines, lists of objects are tables, the rest is listed."""
    made = record.get("benchmark", {})
    results = {key: value for key, value in record.items() if key != "benchmark"}
    numbers = {key: value for key, value in results.items() if isinstance(value, int | float)}
    tables = {key: _table(value) for key, value in results.items() if _is_table(value)}
    rest = {key: value for key, value in results.items() if key not in {*numbers, *tables, "settings"}}
    nested = {key: _leaves(value) for key, value in rest.items() if _is_nested(value)}
    sections = [(one, _table(one.rows) if one.rows else None) for one in sections_of(record)]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined
    )  # values are only text
    environment.filters["number"] = shown
    environment.filters["cell"] = shown_cell
    return environment.from_string(TEMPLATE.read_text()).render(
        title=title or f"sigma benchmark {made.get('verb', '')}".strip(),
        made=made,
        open_leaves=0 if sections else OPEN_LEAVES,  # what the sections show is not said again
        numbers=numbers,
        sections=sections,
        single={
            k: "none" if value in ({}, []) else shown(value) for k, value in rest.items() if k not in nested
        },
        tables=tables,
        nested=nested,
        settings=_leaves(made.get("settings", {})),
    )


def save_page(path: Path, record: Mapping[str, Any], title: str = "") -> None:
    """Write the page, atomically."""
    write_bytes(path, page_of(record, title).encode())


def shown(value: Any) -> str:
    """A value as a reader wants it: three or four digits, thousands apart."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if 0 < abs(value) < LEAST:
        return f"{value:.0e}"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.4f}"


def shown_cell(value: Any, column: str, signed: bool = False) -> str:
    """A value of a table's column: p values with four decimals and never as 0; `signed` numbers with their sign."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shown(value)
    if column in P_VALUES:
        return f"<{LEAST_P:.4f}".replace("0.", ".") if value < LEAST_P else f"{value:.4f}"
    return f"{'+' if signed and value >= 0 else ''}{shown(value)}"


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(key for row in rows for key in row if not isinstance(row[key], list | dict)))
    bar = next((name for name in BARS if name in columns), None)
    most = max((row.get(bar) or 0.0 for row in rows), default=0.0) if bar else 0.0
    shares = [round(100 * (row.get(bar) or 0.0) / most, 1) if bar and most else 0.0 for row in rows]
    middle = _middle(rows, columns)
    drawn: list[dict[str, float] | None] = [*_intervals(rows, middle)] if middle else []
    return {
        "columns": columns,
        "text": {name for name in columns[1:] if any(isinstance(row.get(name), str) for row in rows)},
        "signed": {middle, LOW, HIGH} if middle and "difference" in middle else set(),
        "verdict": VERDICT if VERDICT in columns else "",
        "bar": bar,
        "interval": bool(drawn),
        "rows": list(zip(rows, shares, drawn or [None for _ in rows], strict=True))[:MAX_ROWS],
    }


def _middle(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    """The column whose interval `low` and `high` are: the one before `low`, else the first that lies inside in every row.

    A record read from its file has its columns by name, so that any may stand before `low`. None where no column fits.
    """
    if not {LOW, HIGH} <= set(columns):
        return None
    place = columns.index(LOW)
    for name in [*columns[max(place - 1, 0) : place], *columns]:
        if name not in (LOW, HIGH) and all(
            _is_inside(row.get(LOW), row.get(name), row.get(HIGH)) for row in rows
        ):
            return name
    return None


def _is_inside(low: Any, value: Any, high: Any) -> bool:
    return all(isinstance(one, int | float) for one in (low, value, high)) and bool(low <= value <= high)


def _intervals(rows: Sequence[Mapping[str, Any]], middle: str) -> list[dict[str, float]]:
    """Where each row's interval, its middle and zero stand, in percent of the width."""
    least, most = min(0.0, *(row[LOW] for row in rows)), max(0.0, *(row[HIGH] for row in rows))

    def at(value: float) -> float:
        return round(100 * (value - least) / ((most - least) or 1.0), 2)

    return [
        {
            "left": at(r[LOW]),
            "width": round(at(r[HIGH]) - at(r[LOW]), 2),
            "middle": at(r[middle]),
            "zero": at(0.0),
        }
        for r in rows
    ]


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    """(path, text) of everything inside, in order."""
    if isinstance(value, Mapping):
        return [
            leaf
            for key, item in value.items()
            for leaf in _leaves(item, f"{path}.{key}" if path else str(key))
        ]
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        return [leaf for number, item in enumerate(value) for leaf in _leaves(item, f"{path}[{number}]")]
    text = ", ".join(map(shown, value)) if isinstance(value, list) else shown(value)
    return [(path or "value", text)]
