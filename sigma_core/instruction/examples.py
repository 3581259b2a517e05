"""Dated examples of one cut: a context a user, and one row a request with its targets.

Joins what the other modules decide (`contexts`, `labels`, `requests`) and holds no rule of its own. Inputs are made
from days up to the cut; only targets, and the labels of seasons and holidays, look at the window after it.
Source: paper, multi-task supervised fine-tuning; definitions in tasks.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import SigmaConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.offers import Offers
from sigma_core.data.purchases import Events, Purchases, distinct, positions_in
from sigma_core.data.splits import target_window
from sigma_core.data.users import UserProfiles
from sigma_core.instruction.contexts import contexts_of, owned_items
from sigma_core.instruction.hashing import keep_by_hash, stable_hash
from sigma_core.instruction.labels import (
    FACT,
    RULES,
    Outcomes,
    askable_phrases,
    rising_items,
    seasonal_types,
    target_facts,
    type_outcomes,
)
from sigma_core.instruction.requests import DayWords, day_words, focus_of, slots_json, slots_of
from sigma_core.instruction.tasks import TASKS

Split: TypeAlias = Literal["train", "test"]
EXAMPLE_SCHEMA: Final[dict[str, Any]] = {
    c.USER_ID: pl.String,
    c.CUT_DATE: pl.Date,
    c.TARGET_END: pl.Date,
    c.TASK: pl.String,
    c.WORDING: pl.Int32,
    c.SLOTS: pl.String,
    c.FOCUS_TEXT: pl.String,
    c.TARGETS: pl.List(pl.String),
}


@dataclass(frozen=True)
class ExampleSet:
    """Contexts (`CONTEXT_SCHEMA`, one row a user) and examples (`EXAMPLE_SCHEMA`, one row a request) of one cut.

    Attributes:
        dropped: what was left out, by reason: targets_outside_catalog, users_without_history, requests_over_limit,
            targets_over_limit.
    """

    contexts: pl.DataFrame
    examples: pl.DataFrame
    dropped: dict[str, int] = field(default_factory=dict)


def build_examples(
    cut: date,
    events: Events,
    catalog: ItemCatalog,
    profiles: UserProfiles,
    config: SigmaConfig,
    *,
    users: Sequence[str] | None = None,
    split: Split,
    max_requests: int | None = None,
    item_types: pl.DataFrame | None = None,
    offers: Offers | None = None,
) -> ExampleSet:
    """Contexts and requests of all tasks at a cut.

    Args:
        cut: last day an input may know.
        events: accepted events of all users, from the start of the data to the end of the target window or beyond; for many
            cuts `Purchases.of` them, which is then made once.
        catalog: catalog of the cut.
        profiles: profiles of the cut.
        users: whose examples; None means everyone with a target.
        split: "train": users with a target and some history in the catalog, train phrases, a seen wording chosen by
            hash, at most `max_targets` targets a request. "test": every user with a target (a context may be empty),
            all phrases (the slot `is_held_out_phrase` tells them apart), wording 0, all targets.
        max_requests: most requests of a user in each task that has many (query, category, campaign), chosen by hash; None keeps all.
        item_types: ITEM_ID, ITEM_TYPE of every item of the source, for the labels of seasons and holidays; None counts
            items of the catalog only, which misses what was first sold in the target window.
        offers: of the source; those that started after the cut are not looked at.

    Raises:
        ValueError: the catalog is of a later day than the cut.
    """
    _check_catalog(catalog, cut)
    horizon, country = config.data.horizon_days, config.data.country
    purchases = Purchases.of(events)
    targets, outside = catalog_targets(purchases, catalog, cut, horizon)
    wanted = targets if users is None else _of_users(targets, pl.Series(users))
    asking = wanted[c.USER_ID].unique().sort()
    owned = owned_items(purchases, catalog, cut, asking, config.instruction.favorite_half_life_days)
    kept = asking if split == "test" else owned.users_with_items()
    known_offers = (offers or Offers.nothing()).known_on(cut)
    words = day_words(purchases, catalog, cut, horizon, country, known_offers)
    rises = type_outcomes(purchases, catalog.frame if item_types is None else item_types, cut, horizon)
    season, holiday = seasonal_types(rises, is_before_holiday=bool(words.holiday))
    facts = target_facts(_of_users(wanted, kept), catalog, owned)
    phrases = askable_phrases(catalog, split)
    rising = rising_items(purchases, facts[c.ITEM_ID].unique(), cut, horizon)  # others answer nobody here
    outcomes = Outcomes(facts, catalog.frame, phrases, season, holiday, config.data, rising, known_offers)
    dropped = {"targets_outside_catalog": outside, "users_without_history": len(asking) - len(kept)}
    salt = f"{config.runtime.seed}:{cut}"
    examples = _requests(outcomes, words, max_requests, salt, dropped)
    if split == "train":
        examples = _with_wordings(examples, salt)
        examples = _limit_targets(examples, config.instruction.max_targets, salt, dropped)
    contexts = contexts_of(owned, kept, profiles, cut, config.instruction)
    return ExampleSet(contexts, _dated(examples, cut, horizon), dropped)


def catalog_targets(
    purchases: Purchases, catalog: ItemCatalog, cut: date, horizon: int
) -> tuple[pl.DataFrame, int]:
    """Distinct purchases of the `horizon` days after `cut`: USER_ID, ITEM_ID of items that the catalog holds, sorted, and the
    number of other pairs, misses by construction.
    """
    user, item = purchases.pairs_between(*target_window(cut, horizon))
    is_known = positions_in(catalog.frame[c.ITEM_ID], purchases.items)[item] >= 0
    ids = {c.USER_ID: purchases.users.gather(user), c.ITEM_ID: purchases.items.gather(item)}
    return pl.DataFrame(ids).filter(pl.Series(is_known)), int((~is_known).sum())


def _dated(examples: pl.DataFrame, cut: date, horizon: int) -> pl.DataFrame:
    """The published columns, sorted."""
    last = pl.lit(target_window(cut, horizon)[1])
    dated = examples.with_columns(pl.lit(cut).alias(c.CUT_DATE), last.alias(c.TARGET_END))
    return dated.select(*EXAMPLE_SCHEMA).sort(c.USER_ID, c.TASK, c.FOCUS_TEXT, c.SLOTS)


def _check_catalog(catalog: ItemCatalog, cut: date) -> None:
    newest = catalog.frame[c.LAUNCHED_ON].max()
    if newest is not None and newest > cut:  # type: ignore[operator]
        raise ValueError(
            f"the catalog holds an item launched on {newest!r}, after the cut {cut}; inputs would see the future. "
            "Pass the catalog of the cut."
        )


def _of_users(frame: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    return frame.filter(pl.col(c.USER_ID).is_in(users.cast(pl.String).implode()))


def _requests(
    outcomes: Outcomes, words: DayWords, max_requests: int | None, salt: str, dropped: dict[str, int]
) -> pl.DataFrame:
    """The requests of all tasks with their sorted targets, in the columns that rules and words decide."""
    answers = pl.concat(
        RULES[task.rule](outcomes).select(pl.lit(name).alias(c.TASK), c.REQUEST_KEY, FACT)
        for name, task in TASKS.items()
    )
    kinds = answers.select(c.TASK, c.REQUEST_KEY).unique().sort(c.TASK, c.REQUEST_KEY)
    said = _said(kinds, outcomes, words)
    kind = answers.join(kinds.with_row_index(_KIND), on=[c.TASK, c.REQUEST_KEY], maintain_order="left")[_KIND]
    facts = outcomes.facts
    # facts are sorted by user and item, so that numbers sorted by kind and fact are, too
    key = distinct(kind.to_numpy().astype(np.int64) * max(facts.height, 1) + answers[FACT].to_numpy())
    kind_A, fact_A = key // max(facts.height, 1), key % max(facts.height, 1)
    user_A = facts[c.USER_ID].rle_id().to_numpy()[fact_A]
    request = np.cumsum(
        (np.diff(kind_A, prepend=-1) != 0) | (np.diff(user_A.astype(np.int64), prepend=-1) != 0)
    )
    asked = (
        pl.DataFrame({_REQUEST: pl.Series(request).set_sorted(), _KIND: kind_A, FACT: fact_A})
        .with_columns(facts[c.ITEM_ID].gather(fact_A).alias(c.TARGETS))
        .group_by(_REQUEST, maintain_order=True)
        .agg(pl.col(_KIND, FACT).first(), c.TARGETS)
    )
    rows = said[asked[_KIND]].with_columns(
        facts[c.USER_ID].gather(asked[FACT]), asked[c.TARGETS], pl.lit(0, pl.Int32).alias(c.WORDING)
    )
    return rows if max_requests is None else _limit_requests(rows, max_requests, salt, dropped)


_KIND: Final = "kind"
_REQUEST: Final = "request"


def _said(kinds: pl.DataFrame, outcomes: Outcomes, words: DayWords) -> pl.DataFrame:
    """TASK, REQUEST_KEY with what requests of each kind say: SLOTS, FOCUS_TEXT."""
    marks = _phrase_marks(outcomes.phrases)
    rows = []
    for name, key in kinds.iter_rows():
        task = TASKS[name]
        slots = slots_of(task, key, words)
        more = marks.get(key, {}) if task.focus == "phrase" else {}
        rows.append((name, key, slots_json(slots | more), focus_of(task, slots)))
    columns = (c.TASK, c.REQUEST_KEY, c.SLOTS, c.FOCUS_TEXT)
    return pl.DataFrame(rows, schema=[(name, pl.String) for name in columns], orient="row")


def _limit_requests(examples: pl.DataFrame, most: int, salt: str, dropped: dict[str, int]) -> pl.DataFrame:
    """At most `most` requests of a user in each task that has many, chosen by hash."""
    parts = []
    for (name,), asked in examples.group_by(c.TASK, maintain_order=True):
        kept = asked
        if TASKS[str(name)].has_many:
            of = (c.USER_ID, c.REQUEST_KEY)
            kept = keep_by_hash(asked, most, of=of, within=(c.USER_ID,), salt=f"{salt}:{name}")
        parts.append(kept)
    kept = pl.concat(parts) if parts else examples
    dropped["requests_over_limit"] = examples.height - kept.height
    return kept


def _phrase_marks(phrases: pl.DataFrame) -> dict[str, dict[str, bool]]:
    """What the slots of a query say beside its phrase: whether it is held out, and whether it is a pseudo one."""
    marks = phrases.select(c.PHRASE, c.IS_HELD_OUT_PHRASE, c.IS_PSEUDO).unique()
    return {
        phrase: {c.IS_HELD_OUT_PHRASE: is_held_out, c.IS_PSEUDO: is_pseudo}
        for phrase, is_held_out, is_pseudo in marks.iter_rows()
    }


def _with_wordings(examples: pl.DataFrame, salt: str) -> pl.DataFrame:
    """WORDING chosen by hash among the task's seen ones."""
    seen = {name: len(task.seen_wordings()) for name, task in TASKS.items()}
    count = pl.col(c.TASK).replace_strict(seen, return_dtype=pl.UInt64)
    choice = stable_hash(examples, (c.USER_ID, c.TASK, c.REQUEST_KEY), f"{salt}:wording")
    return examples.with_columns((pl.lit(choice) % count).cast(pl.Int32).alias(c.WORDING))


def _limit_targets(examples: pl.DataFrame, most: int, salt: str, dropped: dict[str, int]) -> pl.DataFrame:
    """TARGETS cut to `most` items by hash of user and item, so that all tasks of a user keep the same ones."""
    size = pl.col(c.TARGETS).list.len()
    long = examples.filter(size > most)
    if long.is_empty():
        return examples
    key = (c.USER_ID, c.TASK, c.REQUEST_KEY)
    pairs = long.select(*key, c.TARGETS).explode(c.TARGETS)
    kept = keep_by_hash(pairs, most, of=(c.USER_ID, c.TARGETS), within=key, salt=f"{salt}:targets")
    dropped["targets_over_limit"] = pairs.height - kept.height
    short = kept.group_by(key).agg(pl.col(c.TARGETS).sort())
    cut_rows = long.drop(c.TARGETS).join(short, on=key).select(examples.columns)
    return pl.concat([examples.filter(size <= most), cut_rows])
