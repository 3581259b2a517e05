"""Events: which rows are accepted, why the others are not, and the published table of a day or month.

Nothing vanishes: every raw row ends in exactly one of the two frames of `clean_events`. Our choice; the paper is
silent on cleaning. No catalog logic here.
"""

from datetime import datetime
from typing import Any, ClassVar, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TableArtifact, digest_bytes, digest_frame

POSITIVE_TYPES: Final = ("purchase", "rating")  # event types that count as "the user took it"
REASONS: Final = (
    "null_user",
    "null_item",
    "bad_time",
    "future_time",
    "unknown_item",
    "nonpositive_quantity",
    "duplicate",
)
EVENT_ORDER: Final = (c.EVENT_TIME, c.USER_ID, c.ITEM_ID, c.SOURCE_ROW)


class InteractionEvents(TableArtifact):
    """Accepted events of one day or one month, sorted by time, user, item, source row; refused rows beside them."""

    schema: ClassVar[dict[str, Any]] = {
        c.USER_ID: pl.String,
        c.ITEM_ID: pl.String,
        c.EVENT_TIME: pl.Datetime("us"),
        c.EVENT_DATE: pl.Date,
        c.EVENT_TYPE: pl.String,
        c.SESSION_ID: pl.String,
        c.QUANTITY: pl.Float64,
        c.PRICE: pl.Float64,
        c.QUERY_TEXT: pl.String,
        c.SOURCE_ROW: pl.Int64,
    }

    def __init__(self, frame: pl.DataFrame, quarantine: pl.DataFrame | None = None) -> None:
        super().__init__(frame, quarantine)
        self.frame = frame.select(self.schema.keys()).sort(EVENT_ORDER)

    def digest(self) -> str:
        """Digest of the rows but for their places in the source's file: a late row moves those of every later day."""
        refused = self.quarantine
        parts = [digest_frame(self.frame.drop(c.SOURCE_ROW))]
        if refused is not None:
            parts.append(digest_frame(refused.drop(c.SOURCE_ROW, strict=False)))
        return digest_bytes(*(part.encode() for part in parts))


def clean_events(
    raw: pl.DataFrame, known_items: pl.Series, as_of: datetime | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split raw rows into accepted events and refused ones.

    A row is refused for the first reason of `REASONS` that holds. A duplicate repeats the user, item, time, session
    and type of an accepted row with a smaller `SOURCE_ROW`; it is looked for last, so that a broken row never costs
    a good one. A null quantity (a view) is accepted, a quantity <= 0 is not; a null event type means a purchase.

    Args:
        raw: frame of `RAW_EVENT_SCHEMA`.
        known_items: item ids of the product master.
        as_of: the source's declared end; a later time is impossible. None: no such check.

    Returns:
        accepted events as `InteractionEvents.schema`, sorted by `EVENT_ORDER`; refused rows = the raw row plus
        REASON and EVENT_DATE (null when the time is), sorted by SOURCE_ROW.
    """
    future = pl.lit(False) if as_of is None else pl.col(c.EVENT_TIME) > as_of
    known = known_items.cast(pl.String).unique()
    reason = (
        pl.when(pl.col(c.USER_ID).is_null())
        .then(pl.lit("null_user"))
        .when(pl.col(c.ITEM_ID).is_null())
        .then(pl.lit("null_item"))
        .when(pl.col(c.EVENT_TIME).is_null())
        .then(pl.lit("bad_time"))
        .when(future)
        .then(pl.lit("future_time"))
        .when(~pl.col(c.ITEM_ID).is_in(known.implode()))
        .then(pl.lit("unknown_item"))
        .when(pl.col(c.QUANTITY) <= 0)
        .then(pl.lit("nonpositive_quantity"))
    )
    marked = raw.with_columns(
        reason.alias(c.REASON),
        pl.col(c.EVENT_TIME).dt.date().alias(c.EVENT_DATE),
        pl.col(c.EVENT_TYPE).fill_null("purchase"),
    )
    good = marked.filter(pl.col(c.REASON).is_null()).sort(EVENT_ORDER)
    repeated = _repeats(good)
    refused = pl.concat(
        [
            marked.filter(pl.col(c.REASON).is_not_null()),
            good.filter(repeated).with_columns(pl.lit("duplicate").alias(c.REASON)),
        ]
    ).sort(c.SOURCE_ROW)
    return good.filter(~repeated).select(InteractionEvents.schema.keys()), refused


def _repeats(sorted_events: pl.DataFrame) -> pl.Series:
    """True for a row that repeats an earlier one.

    Rows arrive in `EVENT_ORDER`, so only runs of equal time, user and item have to be looked at.
    """
    key = (c.EVENT_TIME, c.USER_ID, c.ITEM_ID)
    same = pl.all_horizontal(pl.col(k) == pl.col(k).shift(1) for k in key).fill_null(False)
    in_run = sorted_events.select((same | same.shift(-1, fill_value=False)).alias("run"))["run"]
    if not in_run.any():
        return in_run
    runs = sorted_events.with_row_index("row").filter(in_run)
    full = [*key, c.SESSION_ID, c.EVENT_TYPE]
    extra = runs.filter(~pl.struct(full).is_first_distinct())["row"]
    return pl.int_range(sorted_events.height, dtype=pl.UInt32, eager=True).is_in(extra.implode())


def positive_events(events: pl.DataFrame) -> pl.DataFrame:
    """The events that count as taking an item: purchases and ratings, no views."""
    return events.filter(pl.col(c.EVENT_TYPE).is_in(POSITIVE_TYPES))
