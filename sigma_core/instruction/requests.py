"""What a request names: the phrase, the category, the season and what is ramping up, the holiday; and free requests.

Inputs only, for training, evaluation and `sigma recommend` alike: words are made from days up to the cut and from the
calendar. Which purchases answer is `labels.py`. Our choice; the paper shows no prompt of these tasks.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import polars as pl
import yaml

from sigma_core import columns as c
from sigma_core.data.calendar import Holiday, holidays_between, season_name
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.splits import target_window
from sigma_core.instruction.aspects import HEAD, LISTED
from sigma_core.instruction.labels import users_of_types
from sigma_core.instruction.phrases import load_phrases, name_words
from sigma_core.instruction.tasks import TASKS, Task, TaskError, render, task_named

SHOPPING_HOLIDAYS_FILE: Final = Path(__file__).parent / "shopping_holidays.yaml"
NUM_RAMPING: Final = 3  # types that a season's request names
RAMPING_DAYS: Final = 14
RAMPING_BASE_DAYS: Final = 56
MIN_RAMPING_USERS: Final = 40  # distinct users of a type in the 14 days; below it the ratio is noise
LIKE_A_WORDING: Final = 0.6  # difflib ratio above which a typed instruction is read as a task's own wording


@dataclass(frozen=True)
class DayWords:
    """What the calendar and the last weeks say at a cut; small enough to store beside an index (JSON of `asdict`).

    Attributes:
        season: "spring" ... of the cut.
        ramping: product types rising up to the cut, strongest first; may be empty.
        holiday: the holiday that the target window leads up to; "" when there is none.
    """

    season: str
    ramping: tuple[str, ...] = ()
    holiday: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DayWords":
        """Read back what `dataclasses.asdict` and JSON wrote."""
        return cls(values["season"], tuple(values["ramping"]), values["holiday"])


def day_words(events: pl.DataFrame, catalog: ItemCatalog, cut: date, horizon: int, country: str) -> DayWords:
    """The words of a cut, from events up to it."""
    first, last = target_window(cut, horizon)
    holiday = window_holiday(first, last, country)
    return DayWords(
        season_name(cut, country), ramping_types(events, catalog, cut), holiday.name if holiday else ""
    )


def ramping_types(events: pl.DataFrame, catalog: ItemCatalog, cut: date) -> tuple[str, ...]:
    """The `NUM_RAMPING` types whose users rise most: the last 14 days over the last 56, both as users a day.

    A type counts with `MIN_RAMPING_USERS` distinct users in the 14 days; users are counted once a 14-day period, so
    that what everyone buys every week does not look like rising. Only days up to the cut are looked at.
    """
    pairs = users_of_types(events, catalog.frame, cut - timedelta(days=RAMPING_BASE_DAYS - 1), cut)
    age = (pl.lit(cut) - pl.col(c.EVENT_DATE)).dt.total_days()
    assert pairs.filter(age < 0).is_empty(), f"an input is later than the cut {cut}"
    counts = pairs.group_by(c.ITEM_TYPE, (age // RAMPING_DAYS).alias("period")).agg(
        pl.col(c.USER_INDEX).n_unique().alias("users")
    )
    now = pl.col("users").filter(pl.col("period") == 0).sum()
    ratio = now * (RAMPING_BASE_DAYS // RAMPING_DAYS) / pl.col("users").sum()
    ranked = (
        counts.group_by(pl.col(c.ITEM_TYPE).cast(pl.String))
        .agg(now.alias("now"), ratio.alias("ratio"))
        .filter((pl.col("now") >= MIN_RAMPING_USERS) & (pl.col("ratio") > 1))
        .sort("ratio", c.ITEM_TYPE, descending=[True, False])
    )
    return tuple(ranked[c.ITEM_TYPE].head(NUM_RAMPING))


def window_holiday(first: date, last: date, country: str) -> Holiday | None:
    """The holiday that a window leads up to: the last one that people shop for from the window's second day to the
    day after it. For 24 to 30 October that is Halloween.
    """
    return max(
        _shopped_for(first + timedelta(days=1), last + timedelta(days=1), country), default=None, key=_on
    )


def next_holiday(day: date, country: str) -> Holiday | None:
    """The next holiday after `day` that people shop for, within a year."""
    return min(
        _shopped_for(day + timedelta(days=1), day + timedelta(days=366), country), default=None, key=_on
    )


def _shopped_for(first: date, last: date, country: str) -> list[Holiday]:
    """Holidays of the days first .. last that shopping_holidays.yaml lists; all of them in a country it leaves out."""
    words = _shopping_words().get(country)
    known = holidays_between(first, last, country)
    return known if words is None else [day for day in known if any(word in day.name for word in words)]


@lru_cache(maxsize=1)
def _shopping_words() -> dict[str, list[str]]:
    words: dict[str, list[str]] = yaml.safe_load(SHOPPING_HOLIDAYS_FILE.read_text())
    return words


def _on(holiday: Holiday) -> date:
    return holiday.date


# ------------------------------------------------------------------------------------------- slots
def slots_of(task: Task, key: str, words: DayWords) -> dict[str, Any]:
    """The values that the wordings of a task name; `key` is the phrase or the category, "" for the others."""
    if task.focus in ("phrase", "category"):
        return {task.focus: key}
    if task.focus == "season":
        return {"season": words.season, "ramping": list(words.ramping)}
    return {"holiday": words.holiday} if task.focus == "holiday" else {}


def focus_of(task: Task, slots: Mapping[str, Any]) -> str:
    """What a request with these slots is about, in words: "soda", "Halloween", "autumn: canned pumpkin, soup"; "" when
    nothing particular is asked for.
    """
    if not task.focus:
        return ""
    about = str(slots[task.focus])
    return f"{about}{HEAD}{LISTED.join(slots['ramping'])}" if slots.get("ramping") else about


def slots_json(slots: Mapping[str, Any]) -> str:
    """The SLOTS column: JSON with sorted keys."""
    return json.dumps(slots, sort_keys=True, ensure_ascii=False)


# --------------------------------------------------------------------------------------- free requests
def free_request(
    task: str | None = None,
    query: str | None = None,
    category: str | None = None,
    instruction: str | None = None,
    *,
    day: date,
    catalog: ItemCatalog,
    events: pl.DataFrame | None = None,
    words: DayWords | None = None,
    country: str = "US",
) -> tuple[str, str]:
    """Instruction text and focus text of what a person asks for.

    Without a task, a query or a category names it. `instruction` is used word for word; what it is about is then found
    in it (a holiday, a known phrase, a category), unless query or category say so. The words of a season come from
    `words` (stored with an index), else from `events` up to `day`, else from the calendar alone.

    Raises:
        TaskError: an unknown task or category (with the nearest names), or a task without the value it needs.
    """
    chosen = task_named(task or ("query" if query else "category" if category else "just_for_you"))
    if category is not None:
        category = known_category(category, catalog)
    if words is None and chosen.focus == "season":
        words = DayWords(
            season_name(day, country), ramping_types(events, catalog, day) if events is not None else ()
        )
    slots = _free_slots(chosen, query, category, words, day, country)
    focus = focus_of(chosen, slots) or (query or category or "")
    if not instruction:
        return render(chosen, 0, slots), focus
    asks_nothing = chosen.name != "just_for_you" and not chosen.focus
    return instruction, focus or ("" if asks_nothing else named_in(instruction, day, catalog, country))


def _free_slots(
    task: Task, query: str | None, category: str | None, words: DayWords | None, day: date, country: str
) -> dict[str, Any]:
    if task.focus == "phrase" and not query:
        raise TaskError('task query needs --query TEXT, for example --query "ice cream".')
    if task.focus == "category" and not category:
        raise TaskError("task category needs --category TEXT, a category of the catalog.")
    if task.focus == "holiday":
        coming = next_holiday(day, country)
        if not query and coming is None:
            raise TaskError(f"no holiday of {country} after {day} is known; name one with --query.")
        return {"holiday": query or (coming.name if coming else "")}
    return slots_of(task, query or category or "", words or DayWords(season_name(day, country)))


def known_category(name: str, catalog: ItemCatalog) -> str:
    """The catalog's category of that name, whatever its case.

    Raises:
        TaskError: there is none; the message names the nearest.
    """
    names: list[str] = catalog.frame[c.CATEGORY].drop_nulls().unique().sort().to_list()
    categories = {value.lower(): value for value in names}
    if name.lower() in categories:
        return categories[name.lower()]
    holding = [value for key, value in categories.items() if name.lower() in key]
    near = holding or [categories[key] for key in difflib.get_close_matches(name.lower(), categories, n=3)]
    hint = f" Did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
    raise TaskError(f"no category {name!r} in the catalog of {len(categories)} categories.{hint}")


def named_in(instruction: str, day: date, catalog: ItemCatalog, country: str) -> str:
    """What a typed instruction is about: the holiday, phrase, category or type it names, the longest of a kind; "" when
    it reads like a wording that asks for nothing particular; otherwise the whole instruction.
    """
    text = f" {' '.join(name_words(instruction))} "
    holidays = {_spoken(h.name): h.name for h in _shopped_for(day, day + timedelta(days=366), country)}
    phrases = {phrase.text: phrase.text for book in load_phrases() for phrase in book.phrases}
    names = pl.concat([catalog.frame[c.CATEGORY], catalog.frame[c.ITEM_TYPE]]).drop_nulls().unique().to_list()
    for known in (holidays, phrases, {name: name for name in names}):
        said = [name for name in known if f" {' '.join(name_words(name))} " in text and name_words(name)]
        if said:
            return known[max(said, key=lambda name: (len(name), name))]
    return "" if _asks_nothing(instruction) else instruction


def _spoken(holiday: str) -> str:
    """A holiday as people say it: "Christmas Day" is Christmas, "Easter Sunday" is Easter."""
    return holiday.removesuffix(" Day").removesuffix(" Sunday")


def _asks_nothing(instruction: str) -> bool:
    wordings = [wording for task in TASKS.values() if not task.focus for wording in task.wordings()]
    like = [
        difflib.SequenceMatcher(None, instruction.lower(), wording.lower()).ratio() for wording in wordings
    ]
    return max(like) >= LIKE_A_WORDING
