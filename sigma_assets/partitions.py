"""The two partition definitions and the named mappings between them, and nothing else.

`periods.SELECT` says what a step reads; the mapping of the same name must cover that, and stay under 100 partitions, since
wider edges drop out of Dagster's staleness silently. The dates are the root's. Source: architecture.md, "Two cadences".
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import dagster as dg

from sigma_assets.periods import MAX_EDGE, ROLLUP_LAG_DAYS, Span, base_months, id_months, next_month
from sigma_assets.stages import Stage

RUNNING: Final = 2
"""Periods that exist before they are over, within the root's dates: the one that runs (Dagster alone would wait for its end), and
the one after it, where a source's clock is ahead of UTC."""

DEFAULT_SPAN = Span(date(2017, 1, 1), date(2018, 1, 1))
"""Dates of the embedded source, for definitions that are loaded without a root."""


@dataclass(frozen=True)
class Calendar:
    """Partition definitions and mappings of one root."""

    daily: dg.DailyPartitionsDefinition
    monthly: dg.MonthlyPartitionsDefinition
    mappings: dict[str, dg.PartitionMapping]

    def partitions_of(self, stage: Stage) -> dg.TimeWindowPartitionsDefinition:
        """DAILY or MONTHLY."""
        return self.daily if stage.cadence == "day" else self.monthly


def calendar_of(span: Span, *, grows: bool = False) -> Calendar:
    """DAILY from the source's first day to its last, MONTHLY around it, and every mapping by its window's name.

    Where the source ends with a month, the month after it is there too: its refit reads only what lies before. A calendar that
    `grows` ends with the clock instead: another end would be another calendar to Dagster, whose conditions then forget what waits.
    """
    after = span.end + timedelta(days=1)
    daily = dg.DailyPartitionsDefinition(
        start_date=span.start.isoformat(), end_date=None if grows else after.isoformat(), end_offset=RUNNING
    )
    monthly = dg.MonthlyPartitionsDefinition(
        start_date=span.start.replace(day=1).isoformat(),
        end_date=None if grows else next_month(after).isoformat(),
        end_offset=RUNNING,
    )
    all_days = (span.end - span.start).days + 1
    back = min(all_days + ROLLUP_LAG_DAYS, 28 * MAX_EDGE)
    mappings: dict[str, dg.PartitionMapping] = {
        "same_day": _window(),
        "same_month": _window(),
        "own_month": _window(),
        "day_before": _window(-1, -1),
        "cut_day": _window(-span.horizon, -span.horizon),
        "refit_cut": _window(
            -1, -1
        ),  # no mapping picks one day: the month before, the step keeps one day of it
        "days_of_month": _window(),
        # Ends 31 days back, so that a day's own month never counts as its input once that month is rolled up.
        "months_before": _window(-back, -ROLLUP_LAG_DAYS),
        "recent_days": _window(1 - ROLLUP_LAG_DAYS, 0),
        "recent_and_next_days": _window(1 - ROLLUP_LAG_DAYS, span.eval_horizon),
        "id_months": _window(-id_months(span), -1),
        "base_shards": _window(-base_months(span), -1),
        "lora_shards": _window(-span.lora_window, -1),
        # Of a month that is judged on its first days: whole months are the least that a mapping between cadences knows.
        "first_day": _window(),
        "first_days": _window(0, span.horizon // 28),
        "all_months_before": _window(-min(MAX_EDGE, all_days // 28 + 2), -1),
        "first_catalogs": _window(-1, 0),
        "first_shards": _window(-max(base_months(span), min(3, -(-span.lora_window // 28))), -1),
    }
    return Calendar(daily, monthly, mappings)


def _window(start: int = 0, end: int = 0) -> dg.TimeWindowPartitionMapping:
    return dg.TimeWindowPartitionMapping(
        start_offset=start, end_offset=end, allow_nonexistent_upstream_partitions=True
    )
