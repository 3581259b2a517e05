"""What a prompt knows of a user at a cut: profile, recent purchases, long-term favourites.

Inputs only: nothing here ever looks at a day after the cut. Which request stands behind the context is `examples.py`.
Source: paper, multi-task supervised fine-tuning (profile text, "recently clicked"); the second part, favourites with
counts, is our choice: half of next week's purchases are repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.config import InstructionConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.events import POSITIVE_TYPES
from sigma_core.data.users import UserProfiles

CONTEXT_SCHEMA: Final[dict[str, Any]] = {
    c.USER_ID: pl.String,
    c.CUT_DATE: pl.Date,
    c.PROFILE_TEXT: pl.String,
    c.RECENT_ITEMS: pl.List(pl.String),
    c.RECENT_AGES: pl.List(pl.Int32),
    c.RECENT_COUNTS: pl.List(pl.Int32),
    c.RECENT_DECAYED: pl.List(pl.Float32),
    c.RECENT_DECAYED_FAST: pl.List(pl.Float32),
    c.FAVORITE_ITEMS: pl.List(pl.String),
    c.FAVORITE_COUNTS: pl.List(pl.Int32),
    c.FAVORITE_AGES: pl.List(pl.Int32),
    c.FAVORITE_DECAYED: pl.List(pl.Float32),
    c.FAVORITE_DECAYED_FAST: pl.List(pl.Float32),
}

# columns of `Owned.frame` beside the two indices
LAST_TIME: Final = "last_time"
AGE: Final = "age"
COUNT: Final = "count"
DECAYED: Final = "decayed"
DECAYED_FAST: Final = "decayed_fast"  # with a quarter of the half-life
FAST: Final = 4.0  # the fast half-life is the configured one over this
_UNIT: Final = 2**40  # decayed counts are summed as integers, so that no order of adding changes a tie


_LISTED: Final = (c.ITEM_INDEX, AGE, COUNT, DECAYED, DECAYED_FAST)
_RECENT: Final = (c.RECENT_ITEMS, c.RECENT_AGES, c.RECENT_COUNTS, c.RECENT_DECAYED, c.RECENT_DECAYED_FAST)
_FAVORITE: Final = (
    c.FAVORITE_ITEMS,
    c.FAVORITE_AGES,
    c.FAVORITE_COUNTS,
    c.FAVORITE_DECAYED,
    c.FAVORITE_DECAYED_FAST,
)


@dataclass(frozen=True)
class Owned:
    """The catalog items that users took up to a cut. Positions instead of ids: a year has a million rows.

    Attributes:
        users: USER_IDs, sorted and distinct; USER_INDEX is a position in it.
        items: ITEM_IDs of the catalog, sorted; ITEM_INDEX is a position in it.
        frame: one row a (user, item), sorted by both: USER_INDEX, ITEM_INDEX (UInt32), LAST_TIME, AGE (Int32, days from
            the last event to the cut), COUNT (Int32, event lines), DECAYED and DECAYED_FAST (Int64, decayed counts in
            units of 2**-40).
    """

    users: pl.Series
    items: pl.Series
    frame: pl.DataFrame

    def users_with_items(self) -> pl.Series:
        """USER_IDs of those who own anything, sorted."""
        return self.users.gather(self.frame[c.USER_INDEX].unique().sort())


def owned_items(
    events: pl.DataFrame, catalog: ItemCatalog, cut: date, users: pl.Series | None, half_life_days: float
) -> Owned:
    """What each user took up to the cut.

    Args:
        events: accepted events; later days than the cut may be there and are not looked at.
        users: whose; None means everyone with an event of the catalog up to the cut.
        half_life_days: an event this old counts half in DECAYED; one a quarter as old in DECAYED_FAST.
    """
    items = catalog.frame[c.ITEM_ID]
    wanted = (history_users(events, catalog, cut) if users is None else users).unique().sort()
    history = (
        _known(events, cut)
        .select(c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT_DATE)
        .join(_positions(wanted, c.USER_ID, c.USER_INDEX), on=c.USER_ID)
        .join(_positions(items, c.ITEM_ID, c.ITEM_INDEX), on=c.ITEM_ID)
        .select(c.USER_INDEX, c.ITEM_INDEX, c.EVENT_TIME, c.EVENT_DATE)
        .collect()
    )
    latest = history[c.EVENT_DATE].max()
    assert latest is None or latest <= cut, f"input of {latest!r} in a context cut at {cut}"  # type: ignore[operator]
    age = (pl.lit(cut) - pl.col(c.EVENT_DATE)).dt.total_days().cast(pl.Int32)
    weight = (_UNIT * 0.5 ** (pl.col(AGE) / half_life_days)).round().cast(pl.Int64).alias(DECAYED)
    fast = (_UNIT * 0.5 ** (pl.col(AGE) * FAST / half_life_days)).round().cast(pl.Int64).alias(DECAYED_FAST)
    pair = pl.col(c.USER_INDEX).cast(pl.UInt64) * len(items) + pl.col(c.ITEM_INDEX)
    frame = (
        history.select(pair.alias(_PAIR), c.EVENT_TIME, age.alias(AGE))
        .with_columns(weight, fast)
        .group_by(_PAIR)
        .agg(
            pl.col(c.EVENT_TIME).max().alias(LAST_TIME),
            pl.col(AGE).min(),
            pl.len().cast(pl.Int32).alias(COUNT),
            pl.col(DECAYED, DECAYED_FAST).sum(),
        )
        .sort(_PAIR)
        .select(
            (pl.col(_PAIR) // max(len(items), 1)).cast(pl.UInt32).alias(c.USER_INDEX),
            (pl.col(_PAIR) % max(len(items), 1)).cast(pl.UInt32).alias(c.ITEM_INDEX),
            *(LAST_TIME, AGE, COUNT, DECAYED, DECAYED_FAST),
        )
    )
    return Owned(wanted, items, frame)


_PAIR: Final = "pair"


def _known(events: pl.DataFrame, cut: date) -> pl.LazyFrame:
    """Events that count as taking an item, up to the cut."""
    return (
        events.lazy().filter(pl.col(c.EVENT_DATE) <= cut).filter(pl.col(c.EVENT_TYPE).is_in(POSITIVE_TYPES))
    )


def _positions(ids: pl.Series, name: str, index: str) -> pl.LazyFrame:
    return pl.LazyFrame({name: ids}, schema={name: pl.String}).with_row_index(index)


def history_users(events: pl.DataFrame, catalog: ItemCatalog, cut: date) -> pl.Series:
    """USER_IDs of everyone who took an item of the catalog up to the cut, sorted."""
    items = catalog.frame.lazy().select(c.ITEM_ID)
    rows = _known(events, cut).select(c.USER_ID, c.ITEM_ID).join(items, on=c.ITEM_ID, how="semi")
    return rows.select(c.USER_ID).unique().collect()[c.USER_ID].sort()


def build_contexts(
    events: pl.DataFrame,
    catalog: ItemCatalog,
    profiles: UserProfiles,
    cut: date,
    config: InstructionConfig,
    users: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Contexts at the cut for serving: of all users who took something of the catalog, or of `users`.

    Returns:
        frame of `CONTEXT_SCHEMA` sorted by USER_ID; a user named in `users` without history has empty lists.
    """
    named = None if users is None else pl.Series(c.USER_ID, users, pl.String)
    owned = owned_items(events, catalog, cut, named, config.favorite_half_life_days)
    return contexts_of(owned, owned.users, profiles, cut, config)


def owned_lists(
    events: pl.DataFrame, catalog: ItemCatalog, cut: date, config: InstructionConfig
) -> pl.DataFrame:
    """USER_ID and OWNED_ITEMS (sorted ids) of everyone at the cut: what a request for something new must leave out."""
    owned = owned_items(events, catalog, cut, None, config.favorite_half_life_days)
    named = owned.frame.select(
        owned.users.gather(owned.frame[c.USER_INDEX]).alias(c.USER_ID),
        owned.items.gather(owned.frame[c.ITEM_INDEX]).alias(c.OWNED_ITEMS),
    )
    return named.sort(c.USER_ID, c.OWNED_ITEMS).group_by(c.USER_ID, maintain_order=True).agg(c.OWNED_ITEMS)


def contexts_of(
    owned: Owned, users: pl.Series, profiles: UserProfiles, cut: date, config: InstructionConfig
) -> pl.DataFrame:
    """One context a user of `users` (a part of `owned.users`), sorted by USER_ID.

    RECENT_ITEMS: distinct items, newest first (equal times by item id). FAVORITE_ITEMS: by decayed count, then newest,
    then item id. An item may stand in both. The other lists are aligned with them: event lines, days since the last
    one, and lines decayed with `favorite_half_life_days` and with a quarter of it.
    """
    newest = {LAST_TIME: True, c.ITEM_INDEX: False}
    recent = dict(zip(_LISTED, _RECENT, strict=True))
    favorite = dict(zip(_LISTED, _FAVORITE, strict=True))
    lists = [name for name, kind in CONTEXT_SCHEMA.items() if kind not in (pl.String, pl.Date)]
    return (
        pl.DataFrame({c.USER_ID: users.unique()})
        .join(profiles.frame.select(c.USER_ID, c.PROFILE_TEXT), on=c.USER_ID, how="left")
        .join(_first(owned, newest, config.max_recent, recent), on=c.USER_ID, how="left")
        .join(
            _first(owned, {DECAYED: True} | newest, config.max_favorites, favorite), on=c.USER_ID, how="left"
        )
        .with_columns(
            pl.lit(cut).alias(c.CUT_DATE), pl.col(c.PROFILE_TEXT).fill_null(""), pl.col(lists).fill_null([])
        )
        .select(pl.col(name).cast(kind) for name, kind in CONTEXT_SCHEMA.items())
        .sort(c.USER_ID)
    )


def _first(owned: Owned, order: Mapping[str, bool], most: int, names: Mapping[str, str]) -> pl.DataFrame:
    """Lists of the first `most` rows of each user in an order (column -> descending), under new names."""
    rows = owned.frame.sort(c.USER_INDEX, *order, descending=[False, *order.values()])
    rows = rows.filter(pl.int_range(pl.len()).over(c.USER_INDEX) < most)
    items = owned.items.gather(rows[c.ITEM_INDEX]).alias(c.ITEM_INDEX)
    units = pl.col(DECAYED, DECAYED_FAST) / _UNIT
    lists = rows.with_columns(items, units).group_by(c.USER_INDEX, maintain_order=True).agg(*names)
    return lists.select(owned.users.gather(lists[c.USER_INDEX]).alias(c.USER_ID), *names).rename(names)
