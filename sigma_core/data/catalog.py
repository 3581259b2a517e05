"""The catalog of a day: which items there are, their words, how new and how much bought they are.

Definition (tasks.md): items sold to at least `min_buyers` users in the window up to the day, plus those first sold in
the last `launch_days`; first sales in the first `left_censored_days` of the data are no launches. The catalog of D is
a function of events up to D only. Words come from `item_text`, price bands from `price_bands`.
"""

from datetime import date, timedelta
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TableArtifact
from sigma_core.config import DataConfig
from sigma_core.data.events import positive_events
from sigma_core.data.item_text import (
    BASE_TEXT,
    add_base_words,
    cut_long_texts,
    is_cut,
    shown_title,
    with_band,
)
from sigma_core.data.masters import Listing
from sigma_core.data.price_bands import DAY, IS_LAUNCH, ITEM, PRICE, UNKNOWN, PriceBands, band_names

POPULARITY_DAYS: Final = 28
SHORT_DAYS: Final = 14
_EPOCH: Final = date(1970, 1, 1)
_LAUNCH_BAND: Final = "launch_band"
_FIRST_TEXT: Final = "first_text"
_IS_LISTED: Final = "is_listed"


class ItemCatalog(TableArtifact):
    """Items of one day, sorted by ITEM_ID; a row's position is the item's index in that day's catalog."""

    schema: ClassVar[dict[str, Any]] = {
        c.ITEM_ID: pl.String,
        c.TITLE: pl.String,
        c.TEXT: pl.String,
        c.LAUNCH_TEXT: pl.String,
        c.TEXT_GROUP: pl.String,
        c.ITEM_TYPE: pl.String,
        c.CATEGORY: pl.String,
        c.DEPARTMENT: pl.String,
        c.BRAND: pl.String,
        c.MAKER: pl.String,
        c.SIZE: pl.String,
        c.PRICE_BAND: pl.String,
        c.LAUNCHED_ON: pl.Date,
        c.IS_NEW: pl.Boolean,
        c.IS_TAIL: pl.Boolean,
        c.NUM_BUYERS_56D: pl.Int64,
        c.NUM_EVENTS_56D: pl.Int64,
        c.NUM_EVENTS_28D: pl.Int64,
        c.NUM_EVENTS_14D: pl.Int64,
    }

    def summary(self) -> dict[str, Any]:
        """Rows, new and tail items, distinct shown titles, texts that were too long and are cut."""
        new, tail, cut = self.frame.select(
            pl.col(c.IS_NEW).sum(), pl.col(c.IS_TAIL).sum(), is_cut(c.TEXT).sum().alias("cut")
        ).row(0)
        groups = self.frame[c.TEXT_GROUP].n_unique()
        counts = {"new_items": new, "tail_items": tail, "text_groups": groups, "cut_texts": cut}
        return super().summary() | counts


class CatalogBuilder:
    """Builds the catalog of any day from one pass over the events.

    Args:
        events: accepted events of the whole source, or up to the last day that will be asked for; any order.
        products: the product master (`sources.base.PRODUCT_SCHEMA`).
        config: windows and thresholds.
        data_start: first day of the source; launches are counted from `left_censored_days` after it.
        listing: what catalog updates changed, for the days that share it; `products` is not looked at then. An item that an
            update listed launches on that day, sold or not; one that came back is there for `launch_days`; one that is not
            in the listing's items is in no catalog.

    Raises:
        ValueError: an event names an item that the product master lacks.
    """

    def __init__(
        self,
        events: pl.DataFrame,
        products: pl.DataFrame,
        config: DataConfig,
        data_start: date,
        listing: Listing | None = None,
    ) -> None:
        self._config = config
        sales = positive_events(events).select(c.USER_ID, c.ITEM_ID, c.EVENT_DATE, c.PRICE).sort(c.EVENT_DATE)
        wanted = sales[c.ITEM_ID].unique()
        known = products
        if listing is not None:
            known = listing.first_words
            wanted = pl.concat(
                [wanted, pl.Series([*listing.listed_on, *listing.returned_on], dtype=pl.String)]
            )
        items = known.filter(pl.col(c.ITEM_ID).is_in(wanted.implode())).sort(c.ITEM_ID)
        self._items = _with_words(items, listing)
        ids = items[c.ITEM_ID]
        self._listed = _days_of(ids, listing.listed_on if listing else {})
        self._returned = _days_of(ids, listing.returned_on if listing else {})
        self._item = _codes(sales[c.ITEM_ID], items[c.ITEM_ID])
        self._user = _numbers(sales[c.USER_ID])
        self._num_users = int(self._user.max(initial=-1)) + 1
        self._day = sales[c.EVENT_DATE].cast(pl.Int32).to_numpy()
        self._first = np.full(items.height, np.iinfo(np.int32).max, dtype=np.int32)
        np.minimum.at(self._first, self._item, self._day)
        self._launches_from = _day_number(data_start + timedelta(days=config.left_censored_days))
        priced = pl.DataFrame(
            {
                ITEM: self._item,
                DAY: sales[c.EVENT_DATE],
                PRICE: sales[c.PRICE],
                IS_LAUNCH: self._day == self._first[self._item],
            }
        )
        self._bands = PriceBands(priced, _dense(items[c.ITEM_TYPE]), config.catalog_window_days)

    def day(self, day: date) -> ItemCatalog:
        """The catalog of `day`, from events up to and including it."""
        today, config = _day_number(day), self._config
        buyers = self._buyers(today, config.catalog_window_days)
        sold = self._sold(today, config.catalog_window_days)
        launched = np.where(self._listed > 0, self._listed, self._first)
        is_launch = ((self._first >= self._launches_from) | (self._listed > 0)) & (launched <= today)
        recently = today - config.launch_days
        is_new = is_launch & (launched > recently)
        here = (buyers >= config.min_buyers) | is_new | (self._returned > recently)
        here &= self._items[_IS_LISTED].to_numpy()
        assert launched[is_new].max(initial=today) <= today, "an item launched after the catalog's day"
        columns = {
            c.LAUNCHED_ON: _dates(np.where(is_launch, launched, 0)),
            c.IS_NEW: pl.Series(is_new),
            c.NUM_BUYERS_56D: pl.Series(buyers),
            c.NUM_EVENTS_56D: pl.Series(sold),
            c.NUM_EVENTS_28D: pl.Series(self._sold(today, POPULARITY_DAYS)),
            c.NUM_EVENTS_14D: pl.Series(self._sold(today, SHORT_DAYS)),
            **self._band_columns(day),
        }
        rows = self._items.with_columns(**columns).filter(pl.Series(here))
        title = shown_title(c.PRICE_BAND)
        words = rows.with_columns(
            title.alias(c.TITLE),
            title.alias(c.TEXT_GROUP),
            with_band(BASE_TEXT, c.PRICE_BAND).alias(c.TEXT),
            with_band(_FIRST_TEXT, _LAUNCH_BAND).alias(c.LAUNCH_TEXT),
            pl.Series(c.IS_TAIL, tail_of(rows[c.NUM_EVENTS_56D].to_numpy(), config.tail_share)),
        )
        words = cut_long_texts(words, c.TEXT, c.LAUNCH_TEXT)
        return ItemCatalog(words.select(ItemCatalog.schema.keys()))

    def _window(self, today: int, days: int) -> slice:
        """Positions of the events of the `days` days up to `today`, none later."""
        start, stop = np.searchsorted(self._day, [today - days, today], side="right")
        assert stop == 0 or self._day[stop - 1] <= today, "an event after the day got into its window"
        return slice(int(start), int(stop))

    def _sold(self, today: int, days: int) -> np.ndarray:
        """Event lines of each item in the window, int64 [N]."""
        return np.bincount(self._item[self._window(today, days)], minlength=len(self._first))

    def _buyers(self, today: int, days: int) -> np.ndarray:
        """Distinct users of each item in the window, int64 [N]."""
        window = self._window(today, days)
        pairs = pl.Series(self._item[window] * self._num_users + self._user[window]).unique().to_numpy()
        return np.bincount(pairs // max(self._num_users, 1), minlength=len(self._first))

    def _band_columns(self, day: date) -> dict[str, pl.Series]:
        bands = self._bands.of_month(day)
        unsold = self._first > _day_number(day)  # listed by an update: it has no price yet
        current = np.where(unsold, UNKNOWN, bands.current)
        first = np.where(self._listed > 0, UNKNOWN, bands.first_known)  # its first text had no price
        return {c.PRICE_BAND: band_names(current), _LAUNCH_BAND: band_names(first)}


def _with_words(items: pl.DataFrame, listing: Listing | None) -> pl.DataFrame:
    """The items with the words of today's master, the text of their first one, and whether they are still listed."""
    first = add_base_words(items)
    if listing is None:
        return first.with_columns(pl.col(BASE_TEXT).alias(_FIRST_TEXT), pl.lit(True).alias(_IS_LISTED))
    texts = first.select(c.ITEM_ID, pl.col(BASE_TEXT).alias(_FIRST_TEXT))
    now = texts.join(listing.items, on=c.ITEM_ID, how="left", maintain_order="left")
    is_listed = pl.col(c.ITEM_ID).is_in(listing.items[c.ITEM_ID].implode())
    return add_base_words(now).with_columns(is_listed.alias(_IS_LISTED))


def _days_of(ids: pl.Series, days: dict[str, date]) -> np.ndarray:
    """Day number of each item, 0 where it has none, int32 [N]."""
    return np.array([_day_number(days[i]) if i in days else 0 for i in ids], dtype=np.int32)


def tail_of(sold: np.ndarray, tail_share: float) -> np.ndarray:
    """True for the items that make the last `tail_share` of the volume, bool [N].

    Items are ranked by volume, ties by position; an item is in the tail when the items before it already make up
    the rest. With volumes 8, 1, 1 and a share of 0.2 the last two are the tail.
    """
    order = np.lexsort((np.arange(len(sold)), -sold))
    before = np.cumsum(sold[order]) - sold[order]
    tail = np.zeros(len(sold), dtype=bool)
    tail[order] = before >= (1 - tail_share) * sold.sum() - 1e-9
    return tail


def _codes(values: pl.Series, sorted_ids: pl.Series) -> np.ndarray:
    """Position of each value in `sorted_ids`, int64."""
    index = pl.DataFrame({c.ITEM_ID: sorted_ids}).with_row_index("index")
    found = pl.DataFrame({c.ITEM_ID: values}).join(index, on=c.ITEM_ID, how="left", maintain_order="left")
    lost = found.filter(pl.col("index").is_null())
    if lost.height:
        raise ValueError(
            f"{lost.height} events name items that the product master lacks (first: {lost.item(0, c.ITEM_ID)!r}); "
            "clean_events with the master's item ids quarantines them."
        )
    return found["index"].to_numpy().astype(np.int64)


def _numbers(values: pl.Series) -> np.ndarray:
    """A number for each distinct value, int64; which one means nothing."""
    return values.fill_null("").cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)


def _dense(values: pl.Series) -> np.ndarray:
    """Numbers 0, 1, ... for the distinct values in their order (null first), int64."""
    filled = values.fill_null("")
    return (
        filled.rank("dense").to_numpy().astype(np.int64) - 1 if len(filled) else np.zeros(0, dtype=np.int64)
    )


def _dates(days: np.ndarray) -> pl.Series:
    """Day numbers as dates, 0 as null."""
    return pl.Series(days).cast(pl.Int32).replace(0, None).cast(pl.Date)


def _day_number(day: date) -> int:
    return (day - _EPOCH).days
