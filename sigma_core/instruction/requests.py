"""What a request names: the phrase, the category, the season and what is ramping up, the holiday; and free requests.

Inputs only, for training, evaluation and `sigma recommend` alike: words are made from days up to the cut and from the
calendar. Which purchases answer is `labels.py`. Our choice; the paper shows no prompt of these tasks.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import polars as pl

from sigma_core import columns as c
from sigma_core.data.calendar import Holiday, holidays_between, season_name
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.offers import Offers, offer_label, offer_words, offers_sent
from sigma_core.data.purchases import Events, Purchases
from sigma_core.data.splits import target_window
from sigma_core.instruction.aspects import HEAD, LISTED
from sigma_core.instruction.labels import Kinds
from sigma_core.instruction.phrases import load_phrases, name_words
from sigma_core.instruction.tasks import TASKS, Task, TaskError, render, task_named
from sigma_core.yaml_files import parse_yaml

SHOPPING_HOLIDAYS_FILE: Final = Path(__file__).parent / "shopping_holidays.yaml"
NUM_RAMPING: Final = 3  # types that a season's request names
RAMPING_DAYS: Final = 14
RAMPING_BASE_DAYS: Final = 56
MIN_RAMPING_USERS: Final = 40  # distinct users of a type in the 14 days; below it the ratio is noise
NUM_RISING: Final = 5  # types that a trending request names: those of the items that rise most
MIN_RISING_USERS: Final = 15  # distinct users of an item in the 14 days
ALSO_SAID: Final = {  # names of holidays that people type
    "Independence Day": ("4th of July", "Fourth of July", "July 4th"),
    "Christmas Day": ("xmas",),
    "New Year's Day": ("New Year", "New Years"),
    "Thanksgiving Day": ("turkey day",),
}
LIKE_A_WORDING: Final = 0.6  # difflib ratio above which a typed instruction is read as a task's own wording


@dataclass(frozen=True)
class DayWords:
    """What the calendar and the last weeks say at a cut; small enough to store beside an index (JSON of `asdict`).

    Attributes:
        season: "spring" ... of the cut.
        ramping: product types rising up to the cut, strongest first; may be empty.
        holiday: the holiday that the target window leads up to; "" when there is none.
        rising: types of the items that rise most up to the cut, strongest first; may be empty.
        offers: offer -> the types it is for, of the offers known at the cut.
        sent: user -> their offers, newest first.
    """

    season: str
    ramping: tuple[str, ...] = ()
    holiday: str = ""
    rising: tuple[str, ...] = ()
    offers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DayWords":
        """Read back what `dataclasses.asdict` and JSON wrote."""
        offers, sent = ({k: tuple(v) for k, v in values.get(n, {}).items()} for n in ("offers", "sent"))
        rising = tuple(values.get("rising", ()))
        return cls(values["season"], tuple(values["ramping"]), values["holiday"], rising, offers, sent)


def day_words(
    events: Events,
    catalog: ItemCatalog,
    cut: date,
    horizon: int,
    country: str,
    offers: Offers | None = None,
) -> DayWords:
    """The words of a cut, from events up to it and offers that started by then."""
    first, last = target_window(cut, horizon)
    holiday = window_holiday(first, last, country)
    known = (offers or Offers.nothing()).known_on(cut)
    purchases = Purchases.of(events)
    return DayWords(
        season_name(cut, country),
        ramping_types(purchases, catalog, cut),
        holiday.name if holiday else "",
        rising_types(purchases, catalog, cut),
        offer_words(known, catalog.frame),
        offers_sent(known),
    )


def ramping_types(events: Events, catalog: ItemCatalog, cut: date) -> tuple[str, ...]:
    """The `NUM_RAMPING` types whose users rise most: the last 14 days over the last 56, both as users a day.

    A type counts with `MIN_RAMPING_USERS` distinct users in the 14 days; users are counted once a 14-day period, so
    that what everyone buys every week does not look like rising. Only days up to the cut are looked at.
    """
    return tuple(_ramping(events, catalog.frame, cut, MIN_RAMPING_USERS)[:NUM_RAMPING])


def rising_types(events: Events, catalog: ItemCatalog, cut: date) -> tuple[str, ...]:
    """Types of the items that rise most by the same ratio, each once, the `NUM_RISING` first ones."""
    sold = catalog.frame.filter(pl.col(c.NUM_EVENTS_14D) >= MIN_RISING_USERS)  # fewer events, fewer users
    each = sold.select(c.ITEM_ID, pl.col(c.ITEM_ID).alias(c.ITEM_TYPE))
    types = dict(sold.select(c.ITEM_ID, c.ITEM_TYPE).drop_nulls().iter_rows())
    rising = _ramping(events, each, cut, MIN_RISING_USERS)
    return tuple(dict.fromkeys(types[item] for item in rising if item in types))[:NUM_RISING]


def _ramping(events: Events, item_types: pl.DataFrame, cut: date, min_users: int) -> list[str]:
    """The rising ones of what `item_types` (ITEM_ID, ITEM_TYPE) sorts items into, strongest first."""
    purchases = Purchases.of(events)
    kinds = Kinds.of(purchases, item_types)
    ends = [cut - timedelta(days=days) for days in range(0, RAMPING_BASE_DAYS, RAMPING_DAYS)]
    counts = [kinds.users(purchases, end - timedelta(days=RAMPING_DAYS - 1), end) for end in ends]
    now, ratio = pl.col("now"), pl.col("now") * len(ends) / pl.col("all")
    ranked = (
        pl.DataFrame({c.ITEM_TYPE: kinds.names, "now": counts[0], "all": sum(counts)})
        .filter((now >= min_users) & (ratio > 1))
        .sort(ratio, c.ITEM_TYPE, descending=[True, False])
    )
    return ranked[c.ITEM_TYPE].to_list()


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
    words: dict[str, list[str]] = parse_yaml(SHOPPING_HOLIDAYS_FILE.read_text())
    return words


def _on(holiday: Holiday) -> date:
    return holiday.date


# ------------------------------------------------------------------------------------------- slots
def slots_of(task: Task, key: str, words: DayWords) -> dict[str, Any]:
    """The values that the wordings of a task name; `key` is the phrase, category or offer, "" for the others."""
    return SLOTS[task.focus](key, words) if task.focus else {}


SLOTS: Final[dict[str, Callable[[str, DayWords], dict[str, Any]]]] = {
    "phrase": lambda key, _: {"phrase": key},
    "category": lambda key, _: {"category": key},
    "season": lambda _, words: {"season": words.season, "ramping": list(words.ramping)},
    "holiday": lambda _, words: {"holiday": words.holiday},
    "trend": lambda _, words: {"trend": "trending", "rising": list(words.rising)},
    "campaign": lambda key, words: {
        "campaign": offer_label(key),
        "offers": list(words.offers.get(key, (key,))),
    },
}


def focus_of(task: Task, slots: Mapping[str, Any]) -> str:
    """What a request with these slots is about, in words: "soda", "Halloween", "autumn: canned pumpkin, soup"; "" when
    nothing particular is asked for.
    """
    if not task.focus:
        return ""
    about = str(slots[task.focus])
    names = slots.get(task.listed)
    return f"{about}{HEAD}{LISTED.join(names)}" if names else about


def slots_json(slots: Mapping[str, Any]) -> str:
    """The SLOTS column: JSON with sorted keys."""
    return json.dumps(slots, sort_keys=True, ensure_ascii=False)


# --------------------------------------------------------------------------------------- free requests
class Named(NamedTuple):
    """A thing that an instruction names: what it is called, which kind of thing, and the words it was known by."""

    name: str
    kind: Literal["holiday", "phrase", "category", "type"]
    words: tuple[str, ...]


class KnownNames:
    """What instructions of a day can name: holidays of the year ahead, phrases, categories and types of the catalog."""

    def __init__(self, day: date, catalog: ItemCatalog, country: str) -> None:
        holidays = [h.name for h in _shopped_for(day, day + timedelta(days=366), country)]
        kinds = [
            catalog.frame[column].drop_nulls().unique().to_list() for column in (c.CATEGORY, c.ITEM_TYPE)
        ]
        phrases = [phrase.text for book in load_phrases() for phrase in book.phrases]
        self._said: list[dict[tuple[str, ...], Named]] = [
            _by_words(
                (said, name, "holiday")
                for name in holidays
                for said in (_spoken(name), *ALSO_SAID.get(name, ()))
            ),
            _by_words((text, text, "phrase") for text in phrases),
            _by_words(
                (name, name, kind)
                for kind, some in zip(("type", "category"), kinds[::-1], strict=True)
                for name in some
            ),
        ]
        self._longest = max((len(words) for group in self._said for words in group), default=0)

    def find(self, instruction: str) -> Named | None:
        """The thing it names: a holiday before a phrase before a category or type, the longest of a kind."""
        words = name_words(instruction)
        spans = [
            words[start:stop]
            for start in range(len(words))
            for stop in range(start + 1, min(start + self._longest, len(words)) + 1)
        ]
        for group in self._said:
            if found := [group[span] for span in spans if span in group]:
                return max(found, key=lambda thing: (len(thing.name), thing.name))
        return None


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
    user_id: str = "",
    names: KnownNames | None = None,
) -> tuple[str, str]:
    """Instruction text and focus text of what a person asks for.

    Without a task, a query or a category names it. `instruction` is used word for word; what it is about is then found
    in it (a holiday, a known phrase, a category), unless query or category say so. The words of a season come from
    `words` (stored with an index), else from `events` up to `day`, else from the calendar alone. A campaign's request is about the
    newest offer sent to `user_id`, or about what `query` says. `names` saves looking the day's names up again.

    Raises:
        TaskError: an unknown task or category (with the nearest names), or a task without the value it needs.
    """
    chosen = task_named(task or ("query" if query else "category" if category else "just_for_you"))
    if category is not None:
        category = known_category(category, catalog)
    if words is None and chosen.listed and events is not None:
        words = day_words(events, catalog, day, 1, country)
    words = words or DayWords(season_name(day, country))
    slots = _free_slots(chosen, query, category, words, day, country, user_id)
    focus = focus_of(chosen, slots) or (query or category or "")
    if not instruction:
        return render(chosen, 0, slots), focus
    asks_nothing = chosen.name != "just_for_you" and not chosen.focus
    return instruction, focus or ("" if asks_nothing else named_in(instruction, day, catalog, country, names))


def _free_slots(
    task: Task,
    query: str | None,
    category: str | None,
    words: DayWords,
    day: date,
    country: str,
    user_id: str,
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
    if task.focus == "campaign" and not query:
        mine = words.sent.get(user_id)
        if not mine:
            raise TaskError(
                f"task campaign: no offer that holds after {day} was sent to this user; say what one is for with --query."
            )
        return slots_of(task, mine[0], words)
    return slots_of(task, query or category or "", words)


def known_category(name: str, catalog: ItemCatalog) -> str:
    """The catalog's category of that name, whatever its case.

    Raises:
        TaskError: there is none; the message names the nearest, or the largest where none is near.
    """
    sizes = (
        catalog.frame[c.CATEGORY]
        .drop_nulls()
        .value_counts()
        .sort("count", c.CATEGORY, descending=[True, False])
    )
    largest = sizes[c.CATEGORY].to_list()
    names: list[str] = sorted(largest)
    categories = {value.lower(): value for value in names}
    if name.lower() in categories:
        return categories[name.lower()]
    holding = [value for key, value in categories.items() if name.lower() in key]
    near = holding or [categories[key] for key in difflib.get_close_matches(name.lower(), categories, n=3)]
    hint = (
        f"Did you mean {' or '.join(map(repr, near[:3]))}?"
        if near
        else f"The largest are {', '.join(map(repr, largest[:3]))}."
    )
    raise TaskError(f"no category {name!r} in the catalog of {len(categories)} categories. {hint}")


def _by_words(things: Iterable[tuple[str, str, Any]]) -> dict[tuple[str, ...], Named]:
    """Spoken form, name and kind of each thing, found by the words of its spoken form; of equal ones the last."""
    keyed = ((name_words(spoken), name, kind) for spoken, name, kind in things)
    return {words: Named(name, kind, words) for words, name, kind in keyed if words}


def named_in(
    instruction: str, day: date, catalog: ItemCatalog, country: str, names: KnownNames | None = None
) -> str:
    """What a typed instruction is about: the holiday, phrase, category or type it names, the longest of a kind; "" when
    it reads like a wording that asks for nothing particular; otherwise the whole instruction.
    """
    found = (names or KnownNames(day, catalog, country)).find(instruction)
    if found is not None:
        return found.name
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
