"""The source, read and cleaned once per process, and cut into days.

Both ways to make a source partition use this: an asset's run of one day, and the bulk ingestion of `sigma materialize`. It
writes nothing and checks no contract. Our choice.
"""

from collections.abc import Iterable
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path

import polars as pl

from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.data.catalog import CatalogBuilder
from sigma_core.data.events import InteractionEvents, clean_events
from sigma_core.data.sources import Source, open_source


class Intake:
    """Accepted and refused events of a source.

    Attributes:
        events: accepted, in the order of `InteractionEvents`.
        refused: with REASON and the day each belongs to.
        products: the product master.
        users: raw profiles.
    """

    def __init__(self, source: Source, products: pl.DataFrame, start: date, end: date) -> None:
        self.products = products
        self.users = source.users()
        self.known_items = self.products[c.ITEM_ID]
        self.events, refused = clean_events(
            source.events(), self.known_items, datetime.combine(end, time.max)
        )
        day = pl.col(c.EVENT_DATE)
        inside = day.is_between(start, end).fill_null(False)
        # A refused row without a (possible) day is kept with the first one, so that it is neither lost nor counted twice.
        self.refused = refused.with_columns(pl.when(inside).then(day).otherwise(start).alias("_day"))

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

    def catalog_builder(self, world: World, events: pl.DataFrame) -> CatalogBuilder:
        """The builder of item catalogs from `events`."""
        return CatalogBuilder(events, self.products, world.config.data, world.span.start)


def intake_of(world: World) -> Intake:
    """The root's source, read when first asked for; the same one for the rest of the process."""
    binding = world.binding
    return _intake(binding.source, binding.path, binding.fingerprint, world.span.start, world.span.end)


def products_of(world: World) -> pl.DataFrame:
    """The root's product master, read when first asked for."""
    return _products(world.binding.source, world.binding.path, world.binding.fingerprint)


def item_types_of(world: World) -> pl.DataFrame:
    """ITEM_ID and ITEM_TYPE of every item of the source: labels of seasons and holidays count items not in a catalog too."""
    return products_of(world).select(c.ITEM_ID, c.ITEM_TYPE)


@lru_cache(maxsize=2)
def _intake(name: str, path: str | None, fingerprint: str, start: date, end: date) -> Intake:
    return Intake(
        open_source(name, Path(path) if path else None), _products(name, path, fingerprint), start, end
    )


@lru_cache(maxsize=2)
def _products(name: str, path: str | None, _fingerprint: str) -> pl.DataFrame:
    return open_source(name, Path(path) if path else None).products()
