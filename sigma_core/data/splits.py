"""The line between what is known at day D and what is asked about: history up to D, targets of the days after.

Definitions are those of tasks.md. Every function here refuses to let the two sides touch.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.events import positive_events


@dataclass(frozen=True)
class Targets:
    """What users really took in the window after D.

    Attributes:
        in_catalog: USER_ID, ITEM_ID, distinct and sorted; items that the catalog of D holds.
        outside: number of distinct (user, item) pairs whose item it does not hold; misses by construction.
    """

    in_catalog: pl.DataFrame
    outside: int


def target_window(day: date, horizon: int) -> tuple[date, date]:
    """First and last day of the `horizon` days after `day`; `day` itself is never a target."""
    if horizon < 1:
        raise ValueError(f"a target window needs a horizon of at least 1 day, arrived {horizon}.")
    return day + timedelta(days=1), day + timedelta(days=horizon)


def history_until(events: pl.DataFrame, day: date) -> pl.DataFrame:
    """Purchases (or ratings) up to `day` included, in the order they arrived in."""
    return positive_events(events.filter(pl.col(c.EVENT_DATE) <= day))


def split_targets(events: pl.DataFrame, catalog: ItemCatalog, day: date, horizon: int) -> Targets:
    """Distinct purchases of the `horizon` days after `day`, parted by whether the catalog of `day` holds the item."""
    first, last = target_window(day, horizon)
    taken = (
        positive_events(events.filter(pl.col(c.EVENT_DATE).is_between(first, last)))
        .select(c.USER_ID, c.ITEM_ID)
        .unique()
    )
    inside = taken.join(catalog.frame.select(c.ITEM_ID), on=c.ITEM_ID, how="semi").sort(c.USER_ID, c.ITEM_ID)
    return Targets(inside, taken.height - inside.height)
