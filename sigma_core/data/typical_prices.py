"""What an item usually costs on a day: the median unit price of its recent sales. Our choice; bounds in requests need a number."""

from datetime import date, timedelta
from typing import Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.data.splits import history_until

PRICES_SCHEMA: Final[dict[str, Any]] = {c.ITEM_ID: pl.String, c.PRICE: pl.Float64}


def typical_prices(events: pl.DataFrame, day: date, window_days: int) -> pl.DataFrame:
    """Frame of `PRICES_SCHEMA`, sorted: the median of what was paid per unit in the window up to `day`, to the cent.

    Events without a price, or of later days, are not looked at; an item without any is left out.
    """
    start = day - timedelta(days=window_days)
    sold = history_until(events, day).filter((pl.col(c.EVENT_DATE) > start) & (pl.col(c.PRICE) > 0))
    return sold.group_by(c.ITEM_ID).agg(pl.col(c.PRICE).median().round(2)).sort(c.ITEM_ID).cast(PRICES_SCHEMA)  # type: ignore[arg-type]
