"""Offers of the tabular source: offers.* (offer_id, user_id, starts_on, ends_on) and offer_items.* (offer_id, item_id).

Both files or neither; other columns are ignored. Our choice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import polars as pl

from sigma_core import columns as c
from sigma_core.data.offers import OFFERED_SCHEMA, SENT_SCHEMA, Offers
from sigma_core.data.sources.base import SourceError, need_plain, told_columns

OFFERS: Final = "offers"
OFFER_ITEMS: Final = "offer_items"


def read_offers(
    offers: Path | None, items: Path | None, read: Callable[[Path], pl.DataFrame], folder: Path
) -> Offers:
    """The offers of two tables; nothing when neither is there.

    Raises:
        SourceError: one without the other, a missing column, an empty id, or a date that cannot be read.
    """
    if offers is None and items is None:
        return Offers.nothing()
    if offers is None or items is None:
        raise SourceError(f"{folder}: {OFFERS} and {OFFER_ITEMS} go together; one of them is missing.")
    sent = _typed(read(offers), offers, list(SENT_SCHEMA))
    return Offers(
        sent.unique().sort(c.OFFER_ID, c.USER_ID, c.STARTS_ON),
        _typed(read(items), items, list(OFFERED_SCHEMA)).unique().sort(c.OFFER_ID, c.ITEM_ID),
    )


def _typed(frame: pl.DataFrame, file: Path, names: list[str]) -> pl.DataFrame:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise SourceError(f"{file}: column {', '.join(missing)} is missing; arrived: {told_columns(frame)}.")
    need_plain(frame, file, names)
    columns = [
        _day(frame, name)
        if name in (c.STARTS_ON, c.ENDS_ON)
        else pl.col(name).cast(pl.String).str.strip_chars()
        for name in names
    ]
    typed = frame.select(columns)
    for name in names:
        bad = typed.with_row_index("row").filter(
            pl.col(name).is_null() | (pl.col(name).cast(pl.String) == "")
        )
        if bad.height:
            row = int(bad.item(0, "row"))
            needed = "a day like 2017-10-23" if name in (c.STARTS_ON, c.ENDS_ON) else "an id"
            raise SourceError(
                f"{file}, column {name}, row {row}: {frame.item(row, name)!r} arrived; {needed} is needed."
            )
    return typed


def _day(frame: pl.DataFrame, name: str) -> pl.Expr:
    column = pl.col(name)
    return (
        column.str.to_date("%Y-%m-%d", strict=False)
        if frame.schema[name] == pl.String
        else column.cast(pl.Date)
    )
