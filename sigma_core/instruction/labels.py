"""Which of a user's purchases answer a request of each task.

Everything here may look at outcomes (the target window); nothing here may enter an input. One rule a task, found by
name in `RULES`; what a request says is `requests.py`. Source: tasks.md; the paper names the tasks and defines none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import ceil
from typing import Any, Final, TypeAlias

import polars as pl

from sigma_core import columns as c
from sigma_core.config import DataConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.events import positive_events
from sigma_core.data.offers import Offers
from sigma_core.data.splits import target_window
from sigma_core.instruction.contexts import Owned
from sigma_core.instruction.phrases import phrase_table

BASE_WEEKS: Final = 8  # weeks before the cut that an outcome is compared with
MIN_BASE_WEEKS: Final = 4  # with fewer in the data, seasons and holidays are undefined
SEASON_Z: Final = 3.0
HOLIDAY_Z: Final = 4.0
RISING_Z: Final = 3.0
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
"""USER_ID, ITEM_ID, REQUEST_KEY: the targets of each request; REQUEST_KEY is "" where a user has one request."""


def target_facts(targets: pl.DataFrame, catalog: ItemCatalog, owned: Owned) -> pl.DataFrame:
    """The targets with what is known of each at the cut; evaluation's rows (repeat, new, cold) come from here.

    Args:
        targets: USER_ID, ITEM_ID of items that the catalog holds.
        owned: catalog items each user took up to the cut. Texts and categories of items that have left the catalog are
            not known and count as never had.

    Returns:
        targets in their order, with ITEM_TYPE, CATEGORY, TEXT_GROUP, IS_NEW, IS_TAIL, IS_REPEAT, IS_TEXT_REPEAT,
        IS_CATEGORY_REPEAT.
    """
    words = catalog.frame.select(c.ITEM_ID, c.ITEM_TYPE, c.CATEGORY, c.TEXT_GROUP, c.IS_NEW, c.IS_TAIL)
    facts = targets.select(c.USER_ID, c.ITEM_ID).join(words, on=c.ITEM_ID, how="left", maintain_order="left")
    users = pl.DataFrame({c.USER_ID: owned.users}, schema={c.USER_ID: pl.String}).with_row_index(c.USER_INDEX)
    found = facts.join(users, on=c.USER_ID, how="left", maintain_order="left")
    flags = []
    for key, name in (
        (c.ITEM_ID, c.IS_REPEAT),
        (c.TEXT_GROUP, c.IS_TEXT_REPEAT),
        (c.CATEGORY, c.IS_CATEGORY_REPEAT),
    ):
        codes = catalog.frame.select(c.ITEM_ID, pl.col(key).rank("dense").alias(_CODE))
        had = owned.frame.select(c.USER_INDEX, codes[_CODE].gather(owned.frame[c.ITEM_INDEX])).unique()
        asked = found.join(codes, on=c.ITEM_ID, how="left", maintain_order="left")
        marked = had.with_columns(pl.lit(True).alias(name))
        known = asked.join(marked, on=[c.USER_INDEX, _CODE], how="left", maintain_order="left")
        flags.append(known[name].fill_null(False))
    return facts.with_columns(flags)


_CODE: Final = "code"


def type_outcomes(events: pl.DataFrame, item_types: pl.DataFrame, day: date, horizon: int) -> pl.DataFrame:
    """How far each type's users in the target window stand above those of the weeks before.

    z = (x - mean) / max(std, sqrt(mean), 1), x = distinct users of the type in the `horizon` days after `day`; mean and
    std (of a sample) are over up to `BASE_WEEKS` windows of the same length and weekdays that end on `day` or before.
    The floors keep a type that sold to nobody, or to the same number every week, from a huge z.

    Args:
        events: accepted events from the start of the data to the end of the target window.
        item_types: ITEM_ID, ITEM_TYPE of the items that count.

    Returns:
        frame of `TYPE_SCHEMA` sorted by type; empty when the data hold fewer than `MIN_BASE_WEEKS` such windows.
    """
    start = events[c.EVENT_DATE].min()
    first_shift = ceil(horizon / 7)
    window_start, window_end = target_window(day, horizon)
    shifts = [
        weeks
        for weeks in range(first_shift, first_shift + BASE_WEEKS)
        if start is not None and window_start - timedelta(days=7 * weeks) >= start  # type: ignore[operator]
    ]
    if len(shifts) < MIN_BASE_WEEKS:
        return pl.DataFrame(schema=TYPE_SCHEMA)
    pairs = users_of_types(events, item_types, window_start - timedelta(days=7 * shifts[-1]), window_end)
    table = pairs.select(c.ITEM_TYPE).unique()
    names = [f"window_{weeks}" for weeks in (0, *shifts)]
    for name, weeks in zip(names, (0, *shifts), strict=True):
        first = window_start - timedelta(days=7 * weeks)
        inside = pairs.filter(pl.col(c.EVENT_DATE).is_between(first, first + timedelta(days=horizon - 1)))
        count = inside.group_by(c.ITEM_TYPE).agg(pl.col(c.USER_INDEX).n_unique().cast(pl.Float64).alias(name))
        table = table.join(count, on=c.ITEM_TYPE, how="left")
    base = pl.concat_list(pl.col(names[1:]).fill_null(0.0))
    mean, std = base.list.mean(), base.list.std()
    users = pl.col(names[0]).fill_null(0.0)
    z = (users - mean) / pl.max_horizontal(std, mean.sqrt(), pl.lit(1.0))
    return table.select(
        pl.col(c.ITEM_TYPE).cast(pl.String),
        mean.alias("mean"),
        std.alias("std"),
        users.alias("users"),
        z.alias(c.Z_SCORE),
    ).sort(c.ITEM_TYPE)


def users_of_types(events: pl.DataFrame, item_types: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """Who took which type when: ITEM_TYPE (Categorical), EVENT_DATE, USER_INDEX (any numbering) of the days first to
    last, both included; one row an event of a known type.
    """
    inside = positive_events(events.filter(pl.col(c.EVENT_DATE).is_between(first, last)))
    types = item_types.select(c.ITEM_ID, pl.col(c.ITEM_TYPE).cast(pl.Categorical)).drop_nulls()
    number = pl.col(c.USER_ID).cast(pl.Categorical).to_physical().alias(c.USER_INDEX)
    return inside.select(number, c.ITEM_ID, c.EVENT_DATE).join(types, on=c.ITEM_ID).drop(c.ITEM_ID)


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


def rising_items(events: pl.DataFrame, item_ids: pl.Series, day: date, horizon: int) -> list[str]:
    """Ids of the items whose users in the target window stand z >= 3 above those of the weeks before, sorted.

    The z of `type_outcomes`, item by item; empty where it is undefined.
    """
    each = pl.DataFrame({c.ITEM_ID: item_ids, c.ITEM_TYPE: item_ids})
    outcomes = type_outcomes(events, each, day, horizon)
    return outcomes.filter(pl.col(c.Z_SCORE) >= RISING_Z)[c.ITEM_TYPE].to_list()


# ------------------------------------------------------------------------------------------- rules
def _general(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(c.USER_ID, c.ITEM_ID, pl.lit("").alias(c.REQUEST_KEY))


def _all(outcomes: Outcomes) -> pl.DataFrame:
    return _general(outcomes.facts)


def _query(outcomes: Outcomes) -> pl.DataFrame:
    """Targets whose type answers a phrase; one request a phrase."""
    answers = outcomes.facts.join(outcomes.phrases, on=[c.CATEGORY, c.ITEM_TYPE], nulls_equal=True)
    return answers.select(c.USER_ID, c.ITEM_ID, pl.col(c.PHRASE).alias(c.REQUEST_KEY))


def _category(outcomes: Outcomes) -> pl.DataFrame:
    """Targets of a category with enough items; one request a category."""
    sizes = outcomes.catalog.drop_nulls(c.CATEGORY).group_by(c.CATEGORY).len("size")
    large = sizes.filter(pl.col("size") >= outcomes.config.min_category_items)
    answers = outcomes.facts.join(large, on=c.CATEGORY, how="semi")
    return answers.select(c.USER_ID, c.ITEM_ID, pl.col(c.CATEGORY).alias(c.REQUEST_KEY))


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
    mine = outcomes.facts.select(c.USER_ID, c.ITEM_ID).join(
        outcomes.offers.sent.select(c.USER_ID, c.OFFER_ID), on=c.USER_ID
    )
    answers = mine.join(outcomes.offers.items, on=[c.OFFER_ID, c.ITEM_ID], how="semi")
    return answers.select(c.USER_ID, c.ITEM_ID, pl.col(c.OFFER_ID).alias(c.REQUEST_KEY))


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
