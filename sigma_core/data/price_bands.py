"""Price bands that stand still: one band an item and month, known before the month starts or on its launch day.

Daily prices move with every promotion, so a text that followed them would be a new text every day. A month's bands
come from the median unit prices of the window before it, cut at the terciles of the item's type; an item first sold
within the month is cut by its launch day's median. Nothing is known in the data's first month. Our choice (tasks.md
asks for frozen bands).
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import polars as pl

BANDS: Final = ("budget", "mid", "premium")
UNKNOWN: Final = -1
MIN_TYPE_ITEMS: Final = 6  # a type with fewer priced items is cut at the terciles of all items
ITEM: Final = "item_index"
DAY: Final = "day"
PRICE: Final = "unit_price"
IS_LAUNCH: Final = "is_launch_day"


@dataclass(frozen=True)
class MonthBands:
    """Band code (index in `BANDS`, or `UNKNOWN`) of every item, int8 [N]: this month's, and the first ever known."""

    current: np.ndarray
    first_known: np.ndarray


class PriceBands:
    """Bands by month, each computed once when first asked for.

    Args:
        sales: ITEM (Int32), DAY (Date), PRICE (Float64 or null), IS_LAUNCH (the item's first day), sorted by DAY.
        item_types: type code of every item, int [N].
        window_days: length of the window before a month that its medians come from.
    """

    def __init__(self, sales: pl.DataFrame, item_types: np.ndarray, window_days: int) -> None:
        self._sales = sales.filter(pl.col(PRICE) > 0).with_columns(pl.col(DAY).set_sorted())
        self._types = item_types
        self._window_days = window_days
        self._months: dict[date, MonthBands] = {}

    def of_month(self, day: date) -> MonthBands:
        """Bands in the month of `day`. Those of items first sold after `day` are not the caller's to read yet."""
        none = np.full(len(self._types), UNKNOWN, dtype=np.int8)
        bands = MonthBands(none, none)
        if self._sales.is_empty():
            return bands
        month = self._sales.item(0, DAY).replace(day=1)
        while month <= day:
            if month not in self._months:
                self._months[month] = self._following(bands, month)
            bands = self._months[month]
            month = next_month(month)
        return bands

    def _following(self, before: MonthBands, month: date) -> MonthBands:
        """Bands of `month`: window median, else launch day, else the band of the month before."""
        medians = _medians(
            self._between(month - timedelta(days=self._window_days), month - timedelta(days=1))
        )
        if medians.is_empty():
            return before
        cuts = _type_cuts(medians, self._types)  # [T, 2]
        current = before.current.copy()
        launches = self._between(month, next_month(month) - timedelta(days=1)).filter(IS_LAUNCH)
        for found in (_medians(launches), medians):
            rows, price = found[ITEM].to_numpy(), found[PRICE].to_numpy()
            low, high = cuts[self._types[rows]].T
            current[rows] = 1 - (price < low) + (price > high)
        first = np.where(before.first_known == UNKNOWN, current, before.first_known)
        return MonthBands(current, first)

    def _between(self, first: date, last: date) -> pl.DataFrame:
        return self._sales.filter(pl.col(DAY).is_between(first, last))


def next_month(day: date) -> date:
    """First day of the month after the one of `day`."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def band_names(codes: np.ndarray) -> pl.Series:
    """Codes int8 [N] as names; null where unknown."""
    return pl.Series(codes).replace_strict(dict(enumerate(BANDS)), default=None, return_dtype=pl.String)


def _medians(sales: pl.DataFrame) -> pl.DataFrame:
    """Median unit price of each item, ITEM and PRICE."""
    return sales.group_by(ITEM).agg(pl.col(PRICE).median()).sort(ITEM)


def _type_cuts(medians: pl.DataFrame, item_types: np.ndarray) -> np.ndarray:
    """Lower and upper tercile of the medians of every type, float64 [T, 2]; of all items where a type has few."""
    terciles = [pl.col(PRICE).quantile(q, "linear").alias(str(q)) for q in (1 / 3, 2 / 3)]
    overall = medians.select(terciles).row(0)
    cuts = np.tile(np.array(overall, dtype=np.float64), (int(item_types.max(initial=0)) + 1, 1))
    types = medians.with_columns(pl.Series("type", item_types[medians[ITEM].to_numpy()]))
    enough = types.group_by("type").agg(*terciles, pl.len().alias("n")).filter(pl.col("n") >= MIN_TYPE_ITEMS)
    cuts[enough["type"].to_numpy()] = enough.drop("type", "n").to_numpy()
    return cuts
