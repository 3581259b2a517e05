"""What requests say: seasons, ramping types, holidays, and what a person types."""

from dataclasses import asdict
from datetime import date, timedelta

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.instruction.requests import (
    DayWords,
    KnownNames,
    day_words,
    focus_of,
    free_request,
    known_category,
    named_in,
    next_holiday,
    ramping_types,
    slots_of,
    window_holiday,
)
from sigma_core.instruction.tasks import TASKS, TaskError
from tests.instruction.small_world import CUT, small_catalog, small_events
from tests.toy_world import toy_catalog

DAY = date(2017, 10, 23)
CATALOG = toy_catalog()


def ask(task=None, **values):
    return free_request(task, day=DAY, catalog=CATALOG, **values)


@pytest.mark.parametrize(
    ("cut", "holiday"),
    [
        (date(2017, 2, 6), "Valentine's Day"),
        (date(2017, 4, 8), "Easter Sunday"),  # and Good Friday, which few shop for
        (date(2017, 6, 26), "Independence Day"),
        (date(2017, 10, 23), "Halloween"),
        (date(2017, 11, 15), "Thanksgiving Day"),
        (date(2017, 12, 17), "Christmas Day"),
        (date(2017, 10, 22), None),  # 30 October is the day after the window; Halloween is one day later
        (date(2017, 10, 30), None),  # the window starts on Halloween: too late to buy for it
        (date(2017, 10, 1), None),  # Columbus Day is a public holiday, but nobody shops for it
    ],
)
def test_the_holiday_a_window_leads_up_to(cut, holiday):
    found = window_holiday(cut + timedelta(days=1), cut + timedelta(days=7), "US")
    assert (found.name if found else None) == holiday


def test_a_country_without_a_list_uses_all_of_its_own():
    found = window_holiday(date(2017, 7, 8), date(2017, 7, 14), "FR")
    assert found is not None
    assert found.date == date(2017, 7, 14)


def test_next_holiday():
    assert next_holiday(DAY, "US").name == "Halloween"
    assert next_holiday(date(2017, 12, 26), "US").name == "New Year's Eve"
    assert next_holiday(date(2017, 10, 31), "US").name == "Thanksgiving Day"


def ramp(counts: dict[str, list[int]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Type -> users in the last 14 days, in the 14 before, ...; one item a type."""
    rows = [
        (f"u{n}", item, DAY - timedelta(days=14 * period + n % 14), "purchase")
        for item, periods in counts.items()
        for period, users in enumerate(periods)
        for n in range(users)
    ]
    columns = {c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.EVENT_DATE: pl.Date, c.EVENT_TYPE: pl.String}
    items = pl.DataFrame({c.ITEM_ID: list(counts), c.ITEM_TYPE: list(counts)})
    events = pl.DataFrame(rows, schema=columns, orient="row")
    return events.with_columns(pl.col(c.EVENT_DATE).cast(pl.Datetime("us")).alias(c.EVENT_TIME)), items


def test_ramping_types_are_ordered_by_their_rise():
    events, items = ramp(
        {
            "pumpkins": [60, 20, 10, 10],  # 4 * 60 / 100 = 2.4
            "candy": [80, 40, 40, 40],  # 1.6
            "soup": [120, 100, 90, 90],  # 1.2
            "milk": [400, 380, 390, 390],  # 1.03
            "fads": [39, 1, 0, 0],  # too few users
            "peaches": [50, 60, 70, 80],  # falling
        }
    )
    catalog = type("Catalog", (), {"frame": items})()
    assert ramping_types(events, catalog, DAY) == ("pumpkins", "candy", "soup")
    later = events.with_columns(pl.col(c.EVENT_DATE) + timedelta(days=40))
    assert ramping_types(pl.concat([events, later.filter(pl.col(c.EVENT_DATE) > DAY)]), catalog, DAY) == (
        "pumpkins", "candy", "soup"
    )  # fmt: skip


def test_no_history_no_ramping_types():
    events, items = ramp({"soup": [0]})
    assert ramping_types(events, type("Catalog", (), {"frame": items})(), DAY) == ()


def test_day_words_survive_json():
    words = day_words(small_events(), small_catalog(), CUT, 7, "US")
    assert (words.season, words.holiday) == ("autumn", "Halloween")
    assert DayWords.from_json(asdict(words)) == words


def test_focus_texts():
    offers = {"soda": ("soda", "yogurt")}
    words = DayWords("autumn", ("pumpkins", "soup and stew"), "Halloween", ("cider",), offers)
    focus = {name: focus_of(task, slots_of(task, "soda", words)) for name, task in TASKS.items()}
    assert focus == {
        "just_for_you": "", "longtail": "", "discover": "", "query": "soda", "category": "soda",
        "season": "autumn: pumpkins, soup and stew", "holiday": "Halloween",
        "trending": "trending: cider", "campaign": "offer-soda: soda, yogurt",
    }  # fmt: skip
    assert focus_of(TASKS["season"], slots_of(TASKS["season"], "", DayWords("winter"))) == "winter"


def test_free_requests_use_the_first_wording():
    assert ask() == ("Recommend what they will take next, going by their profile and history.", "")
    assert ask(query="taco night")[1] == "taco night"
    assert ask("query", query="ice cream")[0].startswith("They ask for ice cream.")
    assert ask("category", category="Diapers") == (
        "They are browsing diapers. Suggest what suits them there.",
        "diapers",
    )
    assert ask("holiday") == ("Halloween is coming. Suggest what this user would get for it.", "Halloween")
    assert ask("holiday", query="Diwali")[1] == "Diwali"
    assert ask("season", words=DayWords("autumn", ("soup",)))[1] == "autumn: soup"
    assert ask("season")[1] == "autumn"


@pytest.mark.parametrize(
    ("instruction", "focus"),
    [
        ("Halloween is coming", "Halloween"),
        ("We are having people over for Christmas dinner", "Christmas Day"),
        ("a quick bite for taco night", "taco night"),
        ("I need diapers", "diapers"),
        ("Surprise me with something new", ""),
        ("Recommend something few people know", ""),
        ("my grandmother's birthday picnic in the garden", "my grandmother's birthday picnic in the garden"),
    ],
)
def test_what_a_typed_instruction_is_about(instruction, focus):
    assert ask(instruction=instruction) == (instruction, focus)
    assert named_in(instruction, DAY, CATALOG, "US") == focus


def test_a_category_in_another_script_is_named_by_its_own_words_alone():
    named = CATALOG.frame.with_columns(
        pl.lit("Кофе 100").alias(c.CATEGORY), pl.lit("Молоко").alias(c.ITEM_TYPE)
    )
    names = KnownNames(DAY, type(CATALOG)(named), "US")
    assert names.find("gifts for 100 guests") is None
    assert names.find("кофе 100 к завтраку").name == "Кофе 100"
    assert names.find("нет ли молоко").name == "Молоко"


def test_a_task_named_with_an_instruction_keeps_its_focus():
    assert ask("query", query="soda", instruction="Halloween drinks") == ("Halloween drinks", "soda")
    assert ask("discover", instruction="Halloween, but new to me") == ("Halloween, but new to me", "")


def test_errors_name_what_exists():
    with pytest.raises(TaskError, match="Did you mean 'diapers'"):
        known_category("diaper", CATALOG)
    with pytest.raises(TaskError, match="Did you mean 'ice cream'"):
        ask("category", category="ice creme")
    with pytest.raises(TaskError, match="The largest are '"):
        known_category("zzz", CATALOG)
    with pytest.raises(TaskError, match="--query"):
        ask("query")
    with pytest.raises(TaskError, match="--category"):
        ask("category")
    with pytest.raises(TaskError, match="just_for_you"):
        ask("justforme")
