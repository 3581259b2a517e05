"""Which of a user's purchases answer a request of each task.

Everything here may look at outcomes (the target window); nothing here may enter an input. One rule a task, found by
name in `RULES`; what a request says is `requests.py`. Source: tasks.md; the paper names the tasks and defines none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import ceil
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import DataConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.offers import Offers
from sigma_core.data.purchases import Events, Purchases, positions_in
from sigma_core.data.splits import target_window
from sigma_core.instruction.contexts import Owned
from sigma_core.instruction.phrases import phrase_table

BASE_WEEKS: Final = 8  # weeks before the cut that an outcome is compared with
MIN_BASE_WEEKS: Final = 4  # with fewer in the data, seasons and holidays are undefined
SEASON_Z: Final = 3.0
HOLIDAY_Z: Final = 4.0
RISING_Z: Final = 3.0
FACT: Final = "fact"  # row of a target among the facts
TYPE_SCHEMA: Final[dict[str, Any]] = {
    c.ITEM_TYPE: pl.String,
    "mean": pl.Float64,
    "std": pl.Float64,
    "users": pl.Float64,
    c.Z_SCORE: pl.Float64,
}


@dataclass(frozen=True)
class Outcomes:
    """What a rule may look at.

    Attributes:
        facts: frame of `target_facts`.
        catalog: the catalog of the cut.
        phrases: frame of `phrases.phrase_table`, of the phrases that may be asked.
        season_types, holiday_types: names of the types so labelled; empty where undefined.
        config: thresholds.
        rising_items: ids of the items so labelled; empty where undefined.
        offers: those that hold after the cut and were known at it (`Offers.known_on`).
    """

    facts: pl.DataFrame
    catalog: pl.DataFrame
    phrases: pl.DataFrame
    season_types: list[str]
    holiday_types: list[str]
    config: DataConfig
    rising_items: list[str] = field(default_factory=list)
    offers: Offers = field(default_factory=Offers.nothing)


Rule: TypeAlias = Callable[[Outcomes], pl.DataFrame]
"""FACT, USER_ID, ITEM_ID, REQUEST_KEY: the targets of each request; REQUEST_KEY is "" where a user has one request."""


def target_facts(targets: pl.DataFrame, catalog: ItemCatalog, owned: Owned) -> pl.DataFrame:
    """The targets with what is known of each at the cut; evaluation's rows (repeat, new, cold) come from here.

    Args:
        targets: USER_ID, ITEM_ID of items that the catalog holds, sorted by user; users of `owned`.
        owned: catalog items each user took up to the cut. Texts and categories of items that have left the catalog are
            not known and count as never had.

    Returns:
        targets in their order, with FACT (the row's number), ITEM_TYPE, CATEGORY, TEXT_GROUP, IS_NEW, IS_TAIL, IS_REPEAT, IS_TEXT_REPEAT,
        IS_CATEGORY_REPEAT.
    """
    user = positions_in(owned.users, targets[c.USER_ID])
    item = positions_in(owned.items, targets[c.ITEM_ID])
    words = catalog.frame.select(c.ITEM_TYPE, c.CATEGORY, c.TEXT_GROUP, c.IS_NEW, c.IS_TAIL)[item]
    flags = {}
    for key, name in (
        (c.ITEM_ID, c.IS_REPEAT),
        (c.TEXT_GROUP, c.IS_TEXT_REPEAT),
        (c.CATEGORY, c.IS_CATEGORY_REPEAT),
    ):
        values = catalog.frame[key]
        code_N = positions_in(values.unique().drop_nulls(), values)
        flags[name] = pl.Series(_had(owned, code_N, user, code_N[item]))
    facts = pl.concat([targets.select(c.USER_ID, c.ITEM_ID), words, pl.DataFrame(flags)], how="horizontal")
    return facts.with_row_index(FACT)


def _had(owned: Owned, code_N: np.ndarray, user_T: np.ndarray, code_T: np.ndarray) -> np.ndarray:
    """Whether each user of `user_T` (sorted) owns an item of a code, bool (T,); code -1 is nobody's."""
    user, item = (owned.frame[name].to_numpy() for name in (c.USER_INDEX, c.ITEM_INDEX))
    out = np.zeros(len(user_T), dtype=bool)
    width = int(code_N.max(initial=0)) + 2  # the last column is of code -1
    step = max(1, MARKS // width)
    for first in range(0, len(owned.users), step):  # some users at a time, so that the marks stay small
        mine, asked = (slice(*np.searchsorted(x, [first, first + step])) for x in (user, user_T))
        marks = np.zeros((step, width), dtype=bool)
        marks[user[mine] - first, code_N[item[mine]]] = True
        marks[:, -1] = False
        out[asked] = marks[user_T[asked] - first, code_T[asked]]
    return out


MARKS: Final = 2**22  # at a time: what a processor's cache holds


def type_outcomes(events: Events, item_types: pl.DataFrame, day: date, horizon: int) -> pl.DataFrame:
    """How far each type's users in the target window stand above those of the weeks before.

    z = (x - mean) / max(std, sqrt(mean), 1), x = distinct users of the type in the `horizon` days after `day`; mean and
    std (of a sample) are over up to `BASE_WEEKS` windows of the same length and weekdays that end on `day` or before.
    The floors keep a type that sold to nobody, or to the same number every week, from a huge z.

    Args:
        events: accepted events from the start of the data to the end of the target window.
        item_types: ITEM_ID, ITEM_TYPE of the items that count.

    Returns:
        frame of `TYPE_SCHEMA` sorted by type, of the types taken in those weeks; empty when the data hold fewer than
        `MIN_BASE_WEEKS` such windows.
    """
    purchases = Purchases.of(events)
    first_shift = ceil(horizon / 7)
    window_start, window_end = target_window(day, horizon)
    starts = [
        start
        for weeks in range(first_shift, first_shift + BASE_WEEKS)
        if purchases.start is not None
        and (start := window_start - timedelta(days=7 * weeks)) >= purchases.start
    ]
    if len(starts) < MIN_BASE_WEEKS:
        return pl.DataFrame(schema=TYPE_SCHEMA)
    kinds = Kinds.of(purchases, item_types)
    windows = [(start, start + timedelta(days=horizon - 1)) for start in (window_start, *starts)]
    counts = {f"window_{n}": kinds.users(purchases, *days) for n, days in enumerate(windows)}
    kind = kinds.kind_I[purchases.item_E[purchases.between(starts[-1], window_end)]]
    is_taken = np.bincount(kind[kind >= 0], minlength=len(kinds.names)) > 0
    names = list(counts)
    table = pl.DataFrame(
        {c.ITEM_TYPE: kinds.names, **counts}, schema_overrides=dict.fromkeys(names, pl.Float64)
    )
    base, mean, std, users = pl.col("base"), pl.col("mean"), pl.col("std"), pl.col("users")
    z = (users - mean) / pl.max_horizontal(std, mean.sqrt(), pl.lit(1.0))
    return (
        table.filter(pl.Series(is_taken))
        .select(c.ITEM_TYPE, pl.concat_list(names[1:]).alias("base"), pl.col(names[0]).alias("users"))
        .with_columns(base.list.mean().alias("mean"), base.list.std().alias("std"))
        .select(c.ITEM_TYPE, mean, std, users, z.alias(c.Z_SCORE))
    )


@dataclass(frozen=True)
class Kinds:
    """Types of the items of some purchases, as numbers.

    Attributes:
        names: the types, sorted; a type's number is its position.
        kind_I: type of each item of the purchases, -1 for none.
    """

    names: pl.Series
    kind_I: np.ndarray

    @classmethod
    def of(cls, purchases: Purchases, item_types: pl.DataFrame) -> "Kinds":
        """Of the items that `item_types` (ITEM_ID, ITEM_TYPE) sorts into types."""
        typed = item_types.select(c.ITEM_ID, c.ITEM_TYPE).drop_nulls()
        names = typed[c.ITEM_TYPE].unique().sort()
        kind_I = np.append(positions_in(names, typed[c.ITEM_TYPE]), -1)  # the last is for absent items
        return cls(names, kind_I[positions_in(typed[c.ITEM_ID], purchases.items)])

    def users(self, purchases: Purchases, first: date, last: date) -> np.ndarray:
        """Distinct users of each type in the days first to last, both included."""
        return purchases.users_of(self.kind_I, len(self.names), first, last)


def seasonal_types(outcomes: pl.DataFrame, *, is_before_holiday: bool) -> tuple[list[str], list[str]]:
    """Names of the season's types and of the holiday's, from the frame of `type_outcomes`; each sorted.

    A holiday's types have z >= 4 in a window in the week before it. The season's have z >= 3 and are not labelled
    holiday types: nearly every week that people shop for is near some holiday, so "outside holiday windows" (tasks.md)
    is read as "not among that window's holiday types".
    """
    z = pl.col(c.Z_SCORE)
    holiday = outcomes.filter(z >= HOLIDAY_Z)[c.ITEM_TYPE].sort().to_list() if is_before_holiday else []
    rising = outcomes.filter(z >= SEASON_Z)[c.ITEM_TYPE].sort().to_list()
    return [name for name in rising if name not in set(holiday)], holiday


def rising_items(events: Events, item_ids: pl.Series, day: date, horizon: int) -> list[str]:
    """Ids of the items whose users in the target window stand z >= 3 above those of the weeks before, sorted.

    The z of `type_outcomes`, item by item; empty where it is undefined.
    """
    purchases = Purchases.of(events)
    count_I = purchases.users_of(
        np.arange(len(purchases.items)), len(purchases.items), *target_window(day, horizon)
    )
    often = purchases.items.filter(
        pl.Series(count_I >= RISING_Z)
    )  # fewer users, a smaller z: its divisor is 1 or more
    ids = item_ids.filter(item_ids.is_in(often.implode()))
    outcomes = type_outcomes(purchases, pl.DataFrame({c.ITEM_ID: ids, c.ITEM_TYPE: ids}), day, horizon)
    return outcomes.filter(pl.col(c.Z_SCORE) >= RISING_Z)[c.ITEM_TYPE].to_list()


# ------------------------------------------------------------------------------------------- rules
def _general(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(FACT, c.USER_ID, c.ITEM_ID, pl.lit("").alias(c.REQUEST_KEY))


def _all(outcomes: Outcomes) -> pl.DataFrame:
    return _general(outcomes.facts)


def _query(outcomes: Outcomes) -> pl.DataFrame:
    """Targets whose type answers a phrase; one request a phrase."""
    answers = outcomes.facts.join(outcomes.phrases, on=[c.CATEGORY, c.ITEM_TYPE], nulls_equal=True)
    return answers.select(FACT, c.USER_ID, c.ITEM_ID, pl.col(c.PHRASE).alias(c.REQUEST_KEY))


def _category(outcomes: Outcomes) -> pl.DataFrame:
    """Targets of a category with enough items; one request a category."""
    sizes = outcomes.catalog.drop_nulls(c.CATEGORY).group_by(c.CATEGORY).len("size")
    large = sizes.filter(pl.col("size") >= outcomes.config.min_category_items)
    answers = outcomes.facts.join(large, on=c.CATEGORY, how="semi")
    return answers.select(FACT, c.USER_ID, c.ITEM_ID, pl.col(c.CATEGORY).alias(c.REQUEST_KEY))


def _longtail(outcomes: Outcomes) -> pl.DataFrame:
    return _general(outcomes.facts.filter(pl.col(c.IS_TAIL) & ~pl.col(c.IS_REPEAT)))


def _discover(outcomes: Outcomes) -> pl.DataFrame:
    return _general(outcomes.facts.filter(~pl.col(c.IS_REPEAT) & ~pl.col(c.IS_TEXT_REPEAT)))


def _season(outcomes: Outcomes) -> pl.DataFrame:
    return _general(outcomes.facts.filter(pl.col(c.ITEM_TYPE).is_in(outcomes.season_types)))


def _holiday(outcomes: Outcomes) -> pl.DataFrame:
    return _general(outcomes.facts.filter(pl.col(c.ITEM_TYPE).is_in(outcomes.holiday_types)))


def _rising(outcomes: Outcomes) -> pl.DataFrame:
    return _general(outcomes.facts.filter(pl.col(c.ITEM_ID).is_in(outcomes.rising_items)))


def _offered(outcomes: Outcomes) -> pl.DataFrame:
    """Targets among the items of an offer that the user was sent; one request an offer."""
    mine = outcomes.facts.select(FACT, c.USER_ID, c.ITEM_ID).join(
        outcomes.offers.sent.select(c.USER_ID, c.OFFER_ID), on=c.USER_ID
    )
    answers = mine.join(outcomes.offers.items, on=[c.OFFER_ID, c.ITEM_ID], how="semi")
    return answers.select(FACT, c.USER_ID, c.ITEM_ID, pl.col(c.OFFER_ID).alias(c.REQUEST_KEY))


RULES: Final[dict[str, Rule]] = {
    "all": _all,
    "query": _query,
    "category": _category,
    "longtail": _longtail,
    "discover": _discover,
    "season": _season,
    "holiday": _holiday,
    "rising": _rising,
    "offered": _offered,
}


def askable_phrases(catalog: ItemCatalog, split: str) -> pl.DataFrame:
    """The phrases of the catalog that a split may ask: train ones only in training, all of them in evaluation."""
    table = phrase_table(catalog.frame)
    return table.filter(~pl.col(c.IS_HELD_OUT_PHRASE)) if split == "train" else table
