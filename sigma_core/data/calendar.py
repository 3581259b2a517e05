"""Holidays, seasons, and the table of what people use each holiday for.

Dates come from the library `holidays` (public and unofficial days); themes from holiday_themes.yaml. Holiday labels
are never made from the themes (tasks.md): they only serve grounding pairs and a baseline.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Final

from sigma_core.yaml_files import parse_yaml

_THEMES: Final = Path(__file__).with_name("holiday_themes.yaml")
_SOUTHERN: Final = frozenset({"AR", "AU", "BO", "BR", "CL", "NZ", "PE", "PY", "UY", "ZA"})
_SEASONS: Final = ("winter", "spring", "summer", "autumn")


@dataclass(frozen=True, order=True)
class Holiday:
    """One holiday on one date, by its English name."""

    date: date
    name: str


def holidays_between(start: date, end: date, country: str = "US") -> list[Holiday]:
    """Public and unofficial holidays from `start` to `end`, both included, sorted; substitute days are left out.

    Raises:
        ValueError: the library knows no such country.
    """
    days = (h for year in range(start.year, end.year + 1) for h in _of_year(year, country))
    return [h for h in days if start <= h.date <= end]


def season_name(day: date, country: str = "US") -> str:
    """winter, spring, summer or autumn, by whole months; the other way round south of the equator."""
    shift = 2 if country in _SOUTHERN else 0
    return _SEASONS[(day.month % 12 // 3 + shift) % 4]


@lru_cache(maxsize=1)
def _theme_table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = parse_yaml(_THEMES.read_text())
    return table


def load_themes() -> dict[str, list[str]]:
    """Holiday name -> words for what people buy for it."""
    return {name: list(words) for name, words in _theme_table().items()}


def check_country(country: str) -> None:
    """`ValueError` when the library `holidays` does not know the country."""
    import holidays

    try:
        holidays.country_holidays(country)
    except NotImplementedError as error:
        raise ValueError(
            f"country {country!r} is unknown to the library holidays; needed a country's code, like US"
        ) from error


@lru_cache(maxsize=64)
def _of_year(year: int, country: str) -> tuple[Holiday, ...]:
    import holidays

    check_country(country)
    known = holidays.country_holidays(country, years=year)
    wanted = [category for category in ("public", "unofficial") if category in known.supported_categories]
    language = "en_US" if "en_US" in known.supported_languages else None
    calendar = holidays.country_holidays(
        country, years=year, categories=wanted, observed=False, language=language
    )
    found = [Holiday(day, name) for day, names in calendar.items() for name in names.split("; ")]
    return tuple(sorted(found))
