"""Words and prices of Amazon metadata, cleaned: entities and tags out, one path of categories, one number a price.

Pure functions of one metadata record of any of the three formats (2014, 2018, 2023). Our choice.
"""

import html
import re
import sys
from typing import Any, Final

MAX_CATEGORY: Final = 60  # a longer "category" of 2018 is a sentence of the product's features
TITLE_WORDS: Final = 12  # of a description that stands in for a missing title
_BLOCKS: Final = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAGS: Final = re.compile(r"</?[a-zA-Z!][^<>]*>|<!--.*?-->", re.DOTALL)
_PRICE: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_JUNK: Final = ("getTime", "function(", "{")


def plain_text(value: str) -> str:
    """The text without tags, entities and halves of characters, blanks single. Entities twice: the files hold "&amp;amp;"."""
    text = html.unescape(html.unescape(value)).encode("utf-8", "ignore").decode()
    return " ".join(_TAGS.sub(" ", _BLOCKS.sub(" ", text)).split())


def title_of(values: dict[str, Any]) -> str | None:
    """The title; without one (or with a script in its place), the first words of the description or features."""
    title = values.get("title")
    if isinstance(title, str) and not any(mark in title for mark in _JUNK) and plain_text(title):
        return plain_text(title)
    for name in ("description", "features", "feature"):
        value = values.get(name)
        parts = value if isinstance(value, list) else [value]
        words = [word for part in parts if isinstance(part, str) for word in plain_text(part).split()]
        if words:
            return " ".join(words[:TITLE_WORDS])
    return None


def category_path(values: dict[str, Any]) -> list[str]:
    """The category path from coarse to fine, distinct names; of several paths (2014) the longest, the first of equal ones."""
    found = values.get("categories") or values.get("category") or []
    if found and isinstance(found, list) and isinstance(found[0], list):
        found = max(found, key=len)
    names = [plain_text(name) for name in found if isinstance(name, str)] if isinstance(found, list) else []
    path = list(dict.fromkeys(name for name in names if name and len(name) <= MAX_CATEGORY))
    main = values.get("main_category") or values.get("main_cat")
    if not path and isinstance(main, str) and plain_text(main):
        path = [plain_text(main)]
    return path


def brand_of(values: dict[str, Any]) -> str | None:
    """The brand: `brand` (2014, 2018), the details' or the store (2023)."""
    details = values.get("details")
    inside = details.get("Brand") if isinstance(details, dict) else None
    for value in (values.get("brand"), inside, values.get("store")):
        if isinstance(value, str) and plain_text(value):
            return plain_text(value).removeprefix("by ").strip() or None
    return None


def price_of(value: Any) -> float | None:
    """The price as a positive number: 5.99, "$5.99", "from 12.99"; of a range the lower end; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if 0 < value <= sys.float_info.max else None
    if not isinstance(value, str) or any(mark in value for mark in _JUNK):
        return None
    match = _PRICE.search(value)
    number = float(match.group().replace(",", "")) if match else 0.0
    return number if number > 0 else None
