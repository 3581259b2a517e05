"""Dates that are known, and the theme table."""

from datetime import date

import pytest

from sigma_core.data.calendar import (
    Holiday,
    holidays_between,
    load_themes,
    season_name,
)


def names(start: date, end: date, country: str = "US") -> list[str]:
    return [h.name for h in holidays_between(start, end, country)]


def test_public_and_unofficial_holidays_are_there():
    year = names(date(2017, 1, 1), date(2017, 12, 31))
    assert {"Valentine's Day", "Easter Sunday", "Halloween", "Thanksgiving Day", "Christmas Day"} <= set(year)
    assert not [name for name in year if "observed" in name]


def test_both_ends_are_included():
    assert holidays_between(date(2017, 10, 31), date(2017, 10, 31)) == [
        Holiday(date(2017, 10, 31), "Halloween")
    ]
    assert names(date(2017, 11, 1), date(2017, 11, 10)) == []


def test_a_range_over_new_year():
    assert names(date(2017, 12, 31), date(2018, 1, 1)) == ["New Year's Eve", "New Year's Day"]


def test_seasons_by_hemisphere():
    assert [season_name(date(2017, m, 15)) for m in (1, 4, 7, 10, 12)] == [
        "winter",
        "spring",
        "summer",
        "autumn",
        "winter",
    ]
    assert season_name(date(2017, 1, 15), "AU") == "summer"


def test_unknown_country_is_a_clear_error():
    with pytest.raises(ValueError, match="country 'XX'"):
        holidays_between(date(2017, 1, 1), date(2017, 2, 1), "XX")


def test_every_theme_is_a_holiday_and_every_holiday_of_2017_has_themes():
    themes = load_themes()
    known = set(names(date(2017, 1, 1), date(2024, 12, 31)))
    assert set(themes) <= known
    assert set(names(date(2017, 1, 1), date(2017, 12, 31))) <= set(themes)
    assert all(6 <= len(words) <= 15 and len(set(words)) == len(words) for words in themes.values())
    assert len(themes) >= 20
