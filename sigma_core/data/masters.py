"""Product masters by date: what a catalog update changes, and what it must leave alone.

A root begins with one master; every catalog update adds the whole master as it is from a day on. The days before keep theirs,
so that shards and checkpoints made from them stay as they are. Pure frames: files are `sigma_assets/masters.py`. Our choice;
the paper only says that catalogs change daily.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from sigma_core import columns as c


@dataclass(frozen=True)
class Listing:
    """What updates did to the items of a day.

    Attributes:
        items: the master of the day, one row an item.
        first_words: every item that any master up to the day named, with the words of its first one. Semantic IDs and price
            bands come from these, so that a rename moves neither.
        listed_on: item -> day of the update that first named it; items of the root's first master are not here.
        returned_on: item -> day of the newest update that took it back after one had left it out.
    """

    items: pl.DataFrame
    first_words: pl.DataFrame
    listed_on: dict[str, date]
    returned_on: dict[str, date]


def listing_of(first: pl.DataFrame, updates: Sequence[tuple[date, pl.DataFrame]], day: date) -> Listing:
    """The listing of `day` from the root's first master and the updates, oldest first; later ones than `day` are not seen."""
    words, items = [first], first
    listed: dict[str, date] = {}
    returned: dict[str, date] = {}
    ever = set(first[c.ITEM_ID].to_list())
    here = set(ever)
    for since, master in updates:
        if since > day:
            break
        now = set(master[c.ITEM_ID].to_list())
        listed |= dict.fromkeys(sorted(now - ever), since)
        returned |= dict.fromkeys(sorted((now & ever) - here), since)
        words.append(master.filter(pl.col(c.ITEM_ID).is_in(list(now - ever))))
        items, here, ever = master, now, ever | now
    return Listing(items, pl.concat(words).sort(c.ITEM_ID), listed, returned)


def item_types(listing: Listing) -> pl.DataFrame:
    """ITEM_ID and ITEM_TYPE of every item that any master up to the day named: delisted items were sold too."""
    newest = listing.items.select(c.ITEM_ID, c.ITEM_TYPE)
    gone = listing.first_words.join(newest, on=c.ITEM_ID, how="anti").select(c.ITEM_ID, c.ITEM_TYPE)
    return pl.concat([newest, gone]).sort(c.ITEM_ID) if gone.height else newest
