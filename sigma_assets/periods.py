"""Days and months as partition keys, and which partitions of an input a step really reads.

One truth for three readers: the planner (which partitions must exist), the IO manager (which files to load) and
`partitions.py` (whose Dagster mapping must cover what is selected here; a test walks every edge). Knows no Dagster, so
that planning a run that has nothing to do costs nothing. Source: architecture.md, "Two cadences, both dates".
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal

Cadence = Literal["day", "month"]
ROLLUP_LAG_DAYS: Final = 31  # a day reads the rollups of the months up to the one this many days before it
MAX_EDGE: Final = 99  # wider edges drop out of Dagster's staleness silently


@dataclass(frozen=True)
class Span:
    """The dates of a root and the widths of its windows, all in days. Immutable; made by `world.World`."""

    start: date
    end: date
    horizon: int = 7
    eval_horizon: int = 7
    shard_stride: int = 3
    base_window: int = 92
    lora_window: int = 21
    id_window: int = 92
    refit_holdout: int = 7


def day_key(day: date) -> str:
    """Partition key of a day."""
    return day.isoformat()


def month_key(day: date) -> str:
    """Partition key of the month a day is in: its first day."""
    return day.replace(day=1).isoformat()


def as_date(key: str) -> date:
    """The date a partition key names."""
    return date.fromisoformat(key)


def next_month(month: date) -> date:
    """First day of the month after."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


def months_back(month: date, number: int) -> date:
    """First day of the month `number` months before."""
    total = month.year * 12 + month.month - 1 - number
    return date(total // 12, total % 12 + 1, 1)


def days(first: date, last: date, span: Span) -> list[str]:
    """Keys of the days from `first` to `last`, both included, that the root has."""
    first, last = max(first, span.start), min(last, span.end)
    return [day_key(first + timedelta(days=n)) for n in range((last - first).days + 1)]


def months(first: date, last: date, span: Span) -> list[str]:
    """Keys of the months from that of `first` to that of `last` that the root has.

    Where the data end with a month, the next one counts: its refit reads only what lies before it.
    """
    month, last = max(first, span.start).replace(day=1), min(last, span.end + timedelta(days=1))
    keys = []
    while month <= last:
        keys.append(day_key(month))
        month = next_month(month)
    return keys


def shard_days(first: date, last: date, span: Span) -> list[str]:
    """The days of a range on which a shard is built: every `shard_stride` days, once its cut lies in the data."""
    return [
        key
        for key in days(first, last, span)
        if as_date(key).toordinal() % span.shard_stride == 0
        and as_date(key) - timedelta(days=span.horizon) >= span.start
    ]


def refit_cut(month: date, span: Span) -> date:
    """The last day that the month's refit learns from; it is judged on the days between this one and its month."""
    return month - timedelta(days=1 + span.refit_holdout)


def base_months(span: Span) -> int:
    """Whole months that the base's window of shards spans; three at most, because an edge may not be wider."""
    return min(3, -(-span.base_window // 31))


def id_months(span: Span) -> int:
    """Whole months that hold the window of the ID teacher."""
    return -(-span.id_window // 28)


Select = Callable[[date, Span], list[str]]


def _months_before(day: date, span: Span) -> list[str]:
    return months(span.start, day - timedelta(days=ROLLUP_LAG_DAYS), span)


def first_recent_day(day: date) -> date:
    """The first day that a reader of `day` takes singly: the days before it come from the monthly rollups."""
    return next_month(day - timedelta(days=ROLLUP_LAG_DAYS))


def _base_shards(month: date, span: Span) -> list[str]:
    first = max(months_back(month, base_months(span)), month - timedelta(days=span.base_window))
    return shard_days(first, refit_cut(month, span), span)


def _lora_shards(day: date, span: Span) -> list[str]:
    return shard_days(day - timedelta(days=span.lora_window), day - timedelta(days=1), span)


def _one(day: date, span: Span) -> list[str]:
    return days(day, day, span)


def _first_catalogs(month: date, span: Span) -> list[str]:
    """Of the refit, of the day before the month, of its first day."""
    before, cut = month - timedelta(days=1), refit_cut(month, span)
    return sorted({*_one(cut, span), *_one(before, span), *_one(month, span)})


def _first_shards(month: date, span: Span) -> list[str]:
    """Of the month's base and of its first day's adapter; three months at most, because an edge may not be wider."""
    both = {*_base_shards(month, span), *_lora_shards(month, span)}
    return sorted(key for key in both if as_date(key) >= months_back(month, 3))


def _first_days(month: date, span: Span) -> list[str]:
    return days(month, month + timedelta(days=span.horizon), span)


SELECT: Final[dict[str, Select]] = {
    "same_day": _one,
    "same_month": lambda month, span: months(month, month, span),
    "own_month": lambda day, span: months(day, day, span),
    "day_before": lambda day, span: _one(day - timedelta(days=1), span),
    "cut_day": lambda day, span: _one(day - timedelta(days=span.horizon), span),
    "refit_cut": lambda month, span: _one(refit_cut(month, span), span),
    "days_of_month": lambda month, span: days(month, next_month(month) - timedelta(days=1), span),
    "months_before": _months_before,
    "recent_days": lambda day, span: days(first_recent_day(day), day, span),
    "recent_and_next_days": lambda day, span: days(
        first_recent_day(day), day + timedelta(days=span.eval_horizon), span
    ),
    "id_months": lambda month, span: months(
        months_back(month, id_months(span)), month - timedelta(days=1), span
    ),
    "base_shards": _base_shards,
    "lora_shards": _lora_shards,
    "first_day": _one,
    "first_days": _first_days,
    "all_months_before": lambda month, span: months(span.start, month - timedelta(days=1), span),
    "first_catalogs": _first_catalogs,
    "first_shards": _first_shards,
}
"""Name of a window -> the partitions that the step of a day (or of a month, given by its first day) reads."""

WINDOWS: Final = frozenset(
    {
        "days_of_month",
        "months_before",
        "recent_days",
        "recent_and_next_days",
        "id_months",
        "base_shards",
        "lora_shards",
        "first_days",
        "all_months_before",
        "first_catalogs",
        "first_shards",
    }
)
"""Windows that hand over a `Window` (many partitions); the others hand over one value."""


def month_span(month: date, span: Span) -> tuple[date, date]:
    """First and last day of the month that lie within the root's dates."""
    return max(month, span.start), min(next_month(month) - timedelta(days=1), span.end)
