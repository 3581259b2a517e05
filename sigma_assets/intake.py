"""The source, read and cleaned once per process, and cut into days.

Both ways to make a source partition use this: an asset's run of one day, and the bulk ingestion of `sigma materialize`. It
writes nothing and checks no contract. Our choice.
"""

from collections.abc import Iterable
from datetime import date, datetime, time
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from sigma_assets.binding import read_binding
from sigma_assets.masters import current_master, digest_on, listing_on
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.data.catalog import CatalogBuilder
from sigma_core.data.events import InteractionEvents, clean_events
from sigma_core.data.masters import Listing, item_types
from sigma_core.data.offers import Offers, offers_of
from sigma_core.data.sources import Source, open_source
from sigma_core.data.sources.base import report_of


class Intake:
    """A source as the steps take it in: each table is read once, when it is first asked for.

    Attributes:
        products: the root's first product master.
        known_items: ids of every product master the root ever had.
    """

    def __init__(
        self, source: Source, products: pl.DataFrame, start: date, end: date, listing: Listing | None = None
    ) -> None:
        self.products = products
        self.known_items = (listing.first_words if listing else products)[c.ITEM_ID]
        self._source, self._listing, self._start, self._end = source, listing, start, end

    @cached_property
    def users(self) -> pl.DataFrame:
        """Raw profiles."""
        return self._source.users()

    @cached_property
    def offers(self) -> Offers:
        """Offers; none where the source has none."""
        return offers_of(self._source)

    @cached_property
    def report(self) -> dict[str, int]:
        """What the source says it read and left out, before any cleaning; empty where it keeps no counts."""
        return report_of(self._source)

    def report_line(self) -> str:
        """The report as one line for a person, counts of 0 left out; empty where there is none."""
        said = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.report.items() if count]
        return f"source {self._source.name}: {', '.join(said)}" if said else ""

    def report_metadata(self) -> dict[str, Any]:
        """The report as metadata of an events partition: of the whole source, so the same on every day of one reading."""
        return {"source_report": self.report} if self.report else {}

    @property
    def events(self) -> pl.DataFrame:
        """Accepted events, in the order of `InteractionEvents`."""
        return self._cleaned[0]

    @property
    def refused(self) -> pl.DataFrame:
        """The other rows, with REASON and the day each belongs to."""
        return self._cleaned[1]

    @property
    def num_rows(self) -> int:
        """Rows of the source's events, accepted or not."""
        return self.events.height + self.refused.height

    def event_inputs(self, days: Iterable[date]) -> dict[str, Any]:
        """What the contract of the days' events needs to know beside them."""
        return {"days": list(days), "known_items": self.known_items, "num_source_rows": self.num_rows}

    @cached_property
    def _cleaned(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Read when first asked for: a catalog needs the product master alone."""
        raw = self._source.events()
        events, refused = clean_events(raw, self.known_items, datetime.combine(self._end, time.max))
        events, refused = _not_yet_listed(events, refused, self._listing.listed_on if self._listing else {})
        day = pl.col(c.EVENT_DATE)
        inside = day.is_between(self._start, self._end).fill_null(False)
        # A refused row without a (possible) day is kept with the first one, so that it is neither lost nor counted twice.
        return events, refused.with_columns(pl.when(inside).then(day).otherwise(self._start).alias("_day"))

    def day(self, day: date) -> InteractionEvents:
        """The partition of one day; a day without rows is an empty one."""
        return InteractionEvents(
            self.events.filter(pl.col(c.EVENT_DATE) == day),
            self.refused.filter(pl.col("_day") == day).drop("_day"),
        )

    def days(self, days: Iterable[date]) -> dict[date, InteractionEvents]:
        """The partitions of many days, each as `day` gives it, with one pass over the rows."""
        events = self.events.partition_by(c.EVENT_DATE, as_dict=True)
        refused = self.refused.partition_by("_day", as_dict=True, include_key=False)
        no_events, no_refused = self.events.clear(), self.refused.clear().drop("_day")
        return {
            day: InteractionEvents(events.get((day,), no_events), refused.get((day,), no_refused))
            for day in days
        }

    def catalog_inputs(self, day: date) -> dict[str, Any]:
        """What the contract of the day's catalog needs to know beside it."""
        listed = {**self._listing.listed_on, **self._listing.returned_on} if self._listing else {}
        return {"day": day, "known_items": self.known_items, "listed": list(listed)}

    def catalog_builder(self, world: World, events: pl.DataFrame, day: date) -> CatalogBuilder:
        """The builder of item catalogs from `events`, for `day` and the days that share its product master."""
        return CatalogBuilder(events, self.products, world.config.data, world.span.start, world.listing(day))


def _not_yet_listed(
    events: pl.DataFrame, refused: pl.DataFrame, listed_on: dict[str, date]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Move events of items that an update listed only later to the refused ones: on their day nobody knew the item."""
    if not listed_on:
        return events, refused
    since = pl.DataFrame({c.ITEM_ID: list(listed_on), "_since": list(listed_on.values())})
    dated = events.join(since, on=c.ITEM_ID, how="left", maintain_order="left")
    early = (pl.col(c.EVENT_DATE) < pl.col("_since")).fill_null(False)
    moved = dated.filter(early).drop("_since").with_columns(pl.lit("unknown_item").alias(c.REASON))
    both = pl.concat([refused, moved.select(refused.columns)]).sort(c.SOURCE_ROW)
    return dated.filter(~early).drop("_since"), both


def intake_of(world: World) -> Intake:
    """The root's source, read when first asked for; the same one for the rest of the process."""
    binding = world.binding
    updates = digest_on(binding, date.max)
    return _intake(
        str(world.root), binding.source, binding.path, f"{binding.fingerprint}/{updates}", *world_dates(world)
    )


def world_dates(world: World) -> tuple[date, date]:
    """First and last day of the root's data."""
    return world.span.start, world.span.end


def item_types_of(world: World, day: date) -> pl.DataFrame:
    """ITEM_ID and ITEM_TYPE of every item known on a day: labels of seasons and holidays count items not in a catalog too."""
    listing = world.listing(day)
    if listing is not None:
        return item_types(listing)
    return current_master(world.root, world.binding, day).select(c.ITEM_ID, c.ITEM_TYPE)


@lru_cache(maxsize=2)
def _intake(root: str, name: str, path: str | None, _version: str, start: date, end: date) -> Intake:
    source, binding = open_source(name, Path(path) if path else None), read_binding(Path(root))
    first = current_master(Path(root), binding, date.min)
    return Intake(source, first, start, end, listing_on(Path(root), binding, date.max))
