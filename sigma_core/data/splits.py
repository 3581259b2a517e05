"""The line between what is known at day D and what is asked about: history up to D, targets of the days after.

Definitions are those of tasks.md. Every function here refuses to let the two sides touch.
"""

from datetime import date, timedelta

import polars as pl

from sigma_core import columns as c
from sigma_core.data.events import positive_events


def target_window(day: date, horizon: int) -> tuple[date, date]:
    """First and last day of the `horizon` days after `day`; `day` itself is never a target."""
    if horizon < 1:
        raise ValueError(f"a target window needs a horizon of at least 1 day, arrived {horizon}.")
    return day + timedelta(days=1), day + timedelta(days=horizon)


def history_until(events: pl.DataFrame, day: date) -> pl.DataFrame:
    """Purchases (or ratings) up to `day` included, in the order they arrived in."""
    return positive_events(events.filter(pl.col(c.EVENT_DATE) <= day))
