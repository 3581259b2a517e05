"""What a prompt knows of a user at a cut: profile, recent purchases, long-term favourites.

Inputs only: nothing here ever looks at a day after the cut. Which request stands behind the context is `examples.py`.
Source: paper, multi-task supervised fine-tuning (profile text, "recently clicked"); the second part, favourites with
counts, is our choice: half of next week's purchases are repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import InstructionConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.purchases import Events, Purchases, day_number, largest_first, positions_in, starts_of
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
AGE: Final = "age"
COUNT: Final = "count"
DECAYED: Final = "decayed"
DECAYED_FAST: Final = "decayed_fast"  # with a quarter of the half-life
FAST: Final = 4.0  # the fast half-life is the configured one over this
_UNIT: Final = 2**40  # decayed counts are summed as integers, so that no order of adding changes a tie


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
        frame: one row a (user, item), sorted by both: USER_INDEX, ITEM_INDEX (Int32), AGE (Int32, days from the last
            event to the cut), COUNT (Int32, event lines), DECAYED and DECAYED_FAST (Int64, decayed counts in units of
            2**-40).
        newest: positions of the rows, user by user, newest last event first, those of one time by item.
    """

    users: pl.Series
    items: pl.Series
    frame: pl.DataFrame
    newest: np.ndarray

    def users_with_items(self) -> pl.Series:
        """USER_IDs of those who own anything, sorted."""
        return self.users.gather(self.frame[c.USER_INDEX].unique().sort())


def owned_items(
    events: Events, catalog: ItemCatalog, cut: date, users: pl.Series | None, half_life_days: float
) -> Owned:
    """What each user took up to the cut.

    Args:
        events: accepted events; later days than the cut may be there and are not looked at.
        users: whose; None means everyone with an event of the catalog up to the cut.
        half_life_days: an event this old counts half in DECAYED; one a quarter as old in DECAYED_FAST.
    """
    purchases = Purchases.of(events)
    pairs, items = purchases.by_pair, catalog.frame[c.ITEM_ID]
    wanted = (history_users(purchases, catalog, cut) if users is None else users).unique().sort()
    user_P = positions_in(wanted, purchases.users)[pairs.user_P]
    item_P = positions_in(items, purchases.items)[pairs.item_P]
    known_E = (pairs.day_E <= day_number(cut)) & ((user_P >= 0) & (item_P >= 0))[pairs.pair_E]
    age_E = day_number(cut) - pairs.day_E[known_E]
    assert (age_E >= 0).all(), f"an input after the cut {cut} in a context"
    pair_E = pairs.pair_E[known_E]
    first = starts_of(pair_E)  # of the pairs that are left
    count = np.diff(first, append=len(pair_E))
    slow_A, fast_A = (_weights(int(age_E.max(initial=0)), half_life_days / speed) for speed in (1.0, FAST))
    frame = pl.DataFrame(
        {
            c.USER_INDEX: user_P[pair_E[first]],
            c.ITEM_INDEX: item_P[pair_E[first]],
            AGE: age_E[first + count - 1],
            COUNT: count.astype(np.int32),
            DECAYED: np.add.reduceat(slow_A[age_E], first) if len(first) else count,
            DECAYED_FAST: np.add.reduceat(fast_A[age_E], first) if len(first) else count,
        }
    )
    rank = pairs.rank_E[known_E][first + count - 1]
    return Owned(wanted, items, frame, largest_first(frame[c.USER_INDEX].to_numpy(), rank))


def _weights(oldest: int, half_life_days: float) -> np.ndarray:
    """What an event of each age counts, ages 0 to `oldest`; int64, units of 2**-40."""
    age = pl.int_range(oldest + 1, eager=True)
    return (_UNIT * 0.5 ** (age / half_life_days)).round().cast(pl.Int64).to_numpy()


def history_users(events: Events, catalog: ItemCatalog, cut: date) -> pl.Series:
    """USER_IDs of everyone who took an item of the catalog up to the cut, sorted."""
    purchases = Purchases.of(events)
    known_I = positions_in(catalog.frame[c.ITEM_ID], purchases.items) >= 0
    past = slice(0, purchases.between(cut, cut).stop)
    has_U = np.zeros(len(purchases.users), dtype=bool)
    has_U[purchases.user_E[past][known_I[purchases.item_E[past]]]] = True
    return purchases.users.filter(pl.Series(has_U))


def build_contexts(
    events: Events,
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


def owned_lists(events: Events, catalog: ItemCatalog, cut: date, config: InstructionConfig) -> pl.DataFrame:
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
    user, decayed = (owned.frame[name].to_numpy()[owned.newest] for name in (c.USER_INDEX, DECAYED))
    favorite = owned.newest[largest_first(user, decayed)]
    named = pl.DataFrame({c.USER_ID: users.unique().sort()})
    texts = named.join(
        profiles.frame.select(c.USER_ID, c.PROFILE_TEXT), on=c.USER_ID, how="left", maintain_order="left"
    )
    parts = (
        texts.with_columns(pl.lit(cut).alias(c.CUT_DATE), pl.col(c.PROFILE_TEXT).fill_null("")),
        _first(owned, named, owned.newest, config.max_recent, _RECENT),
        _first(owned, named, favorite, config.max_favorites, _FAVORITE),
    )
    return pl.concat(parts, how="horizontal").select(
        pl.col(name).cast(kind) for name, kind in CONTEXT_SCHEMA.items()
    )


def _first(
    owned: Owned, users: pl.DataFrame, order: np.ndarray, most: int, names: Sequence[str]
) -> pl.DataFrame:
    """Lists of the first `most` rows of each of the users, in an order that goes user by user, under new names."""
    user = owned.frame[c.USER_INDEX].to_numpy()[order]
    size_U = np.bincount(user, minlength=len(owned.users))
    place = np.arange(len(user)) - (np.cumsum(size_U) - size_U)[user]
    rows = owned.frame[order[place < most]]
    columns = {
        c.USER_INDEX: rows[c.USER_INDEX].set_sorted(),
        names[0]: owned.items.gather(rows[c.ITEM_INDEX]),
    }
    columns |= {name: rows[kind] for name, kind in zip(names[1:3], (AGE, COUNT), strict=True)}
    columns |= {
        name: pl.Series((rows[kind].to_numpy() / _UNIT).astype(np.float32))
        for name, kind in zip(names[3:], (DECAYED, DECAYED_FAST), strict=True)
    }
    lists = pl.DataFrame(columns).group_by(c.USER_INDEX, maintain_order=True).agg(*names)
    with_items = owned.users.gather(lists[c.USER_INDEX])
    if not with_items.equals(users[c.USER_ID]):  # some have none, or are not asked for
        named = lists.with_columns(with_items.alias(c.USER_ID))
        lists = users.join(named, on=c.USER_ID, how="left", maintain_order="left")
        lists = lists.with_columns(pl.col(list(names)).fill_null([]))
    return lists.select(names)
