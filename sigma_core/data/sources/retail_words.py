"""Readable names for the retail shorthand of a product master: "FRZN FRENCH FRIES" becomes "frozen french fries".

The words are in retail_words.yaml, so that a person can correct them; this module only applies them. Each distinct
name is worked out once. Our choice; the paper's items have titles.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.yaml_files import parse_yaml

_TABLE: Final = Path(__file__).with_name("retail_words.yaml")
_UNITS: Final = {
    "OZ": "oz", "OZS": "oz", "Z": "oz", "O": "oz", "LB": "lb", "LBS": "lb", "CT": "count", "PK": "pack", "PKS": "pack",
    "P": "pack", "GA": "gallon", "GAL": "gallon", "GALON": "gallon", "L": "liter", "ML": "ml", "PT": "pint",
    "QT": "quart", "DZ": "dozen", "DOZ": "dozen", "SQFT": "square feet", "FT": "feet", "YD": "yard", "IN": "inch",
    "CM": "cm", "PC": "piece", "PCS": "piece", "G": "gram", "LOADS": "load", "LOAD": "load", "LD": "load",
    "LDS": "load", "STEM": "stem", "ROLL": "roll", "CUP": "cup", "KIT": "kit",
}  # fmt: skip
_ALONE: Final = ("PT", "QT", "GAL", "DZ", "L", "LB")  # units that mean one of it when no number is there
_NUMBER: Final = r"\d*\.?\d+"
_AMOUNT: Final = re.compile(
    rf"({_NUMBER}(?:\s*[-X]\s*{_NUMBER})?)[\s-]*({'|'.join(sorted(_UNITS, key=len, reverse=True))})\b"
)
_LAST_WORDS: Final = ("other", "others", "loose", "general", "specialty")  # said first: "other nuts"


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    table: dict[str, Any] = parse_yaml(_TABLE.read_text())
    table["vague"] = frozenset(table["vague"])
    return table


def readable_products(products: pl.DataFrame) -> pl.DataFrame:
    """Complete Journey's product table as ITEM_ID, ITEM_TYPE, CATEGORY, DEPARTMENT, BRAND, MAKER, SIZE in words."""
    kinds = products.select("product_type", "product_category").unique(maintain_order=True)
    kinds = kinds.with_columns(
        pl.Series(c.ITEM_TYPE, [type_name(t, g) for t, g in kinds.iter_rows()], pl.String),
        pl.Series(c.CATEGORY, [category_name(g) for g in kinds["product_category"]], pl.String),
    )
    departments = {d: department_name(d) for d in products["department"].unique() if d}
    sizes = {s: size_name(s) for s in products["package_size"].unique() if s}
    named = products.join(kinds, on=["product_type", "product_category"], how="left", nulls_equal=True)
    return named.select(
        pl.col("product_id").cast(pl.String).alias(c.ITEM_ID),
        c.ITEM_TYPE,
        c.CATEGORY,
        pl.col("department").replace_strict(departments, default=None).alias(c.DEPARTMENT),
        (pl.col("brand").str.to_lowercase() + " brand").alias(c.BRAND),
        (pl.lit("maker ") + pl.col("manufacturer_id").cast(pl.String)).alias(c.MAKER),
        pl.col("package_size").replace_strict(sizes, default=None, return_dtype=pl.String).alias(c.SIZE),
    ).sort(c.ITEM_ID)


def type_name(raw: str | None, category: str | None) -> str | None:
    """Name of a product type; a vague one ("PREMIUM") takes its category along ("premium bacon")."""
    if raw is None:
        return None
    types = _table()["types"]
    listed: str | None = types.get(f"{raw} | {category}") or types.get(raw)
    if listed is not None:
        return listed
    name = _spelt_out(raw)
    group = category_name(category)
    if group and raw in _table()["vague"] and not set(group.split()) <= set(name.split()):
        return f"{name} {group}"
    return name or group


def category_name(raw: str | None) -> str | None:
    """Name of a product category."""
    return None if raw is None else _table()["categories"].get(raw) or _spelt_out(raw) or None


def department_name(raw: str) -> str:
    """Name of a department."""
    return str(_table()["departments"].get(raw) or _spelt_out(raw))


def size_name(raw: str) -> str | None:
    """A package size in plain units ("1 GA" -> "1 gallon", "6 PK/12 OZ" -> "6 pack 12 oz"); None when it says nothing.

    Multiples are written out ("10/6.75 OZ" -> "10 x 6.75 oz"), counted ranges stay ("48-54 CT" -> "48-54 count"),
    store codes are dropped ("974246  PK" -> None).
    """
    text = re.sub(r"\(.*?\)", " ", raw.upper()).replace("SQ FT", "SQFT").replace("FL OZ", "OZ")
    if text.strip() in _ALONE:
        return f"1 {_UNITS[text.strip()]}"
    text = re.sub(r"\d{5,}", " ", text)
    text = re.sub(r"(?:\b(\d+) )?\b([1357])/([248])\b(?=\s*[A-Z])", _fraction, text)
    text = re.sub(rf"(?<![\d.])({_NUMBER})(?:/| - )({_NUMBER})(?=\s*[A-Z])", r"\1X\2", text)
    amounts = [f"{_amount(number, unit)} {_UNITS[unit]}" for number, unit in _AMOUNT.findall(text)]
    return " ".join(amounts) or None


def _amount(number: str, unit: str) -> str:
    """A plain number, a range, or a product; a range of ounces is a product in this data ("6-4 OZ")."""
    numbers = [f"{float(n):g}" for n in re.findall(_NUMBER, number)]
    product = "X" in number or unit == "OZ"
    return (" x " if product else "-").join(numbers)


def _fraction(match: re.Match[str]) -> str:
    whole, top, bottom = (int(g or 0) for g in match.groups())
    return match.group() if top >= bottom else f"{whole + top / bottom:g}"


def _spelt_out(raw: str) -> str:
    """Lower-case words: parentheses dropped, shorthand expanded, a slash read as "and"."""
    text = re.sub(r"\([^)]*\)?", " ", raw)
    for phrase, words in _table()["phrases"].items():
        text = text.replace(phrase, f" {words} ")
    parts = [_words_of(part) for part in re.split(r"[/&]", text)]
    return _joined([part for part in parts if part])


def _words_of(part: str) -> str:
    table = _table()["words"]
    words = [str(table.get(w.upper(), w)) for w in re.findall(r"[A-Za-z0-9.%']+", part)]
    words = [w.strip(".").lower() for w in words]
    if len(words) > 1 and words[-1] in _LAST_WORDS:
        words = [words[-1].removesuffix("s"), *words[:-1]]
    return " ".join(w for i, w in enumerate(words) if w and (i == 0 or w != words[i - 1]))


def _joined(parts: list[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]
