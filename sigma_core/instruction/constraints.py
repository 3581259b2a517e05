"""Constraints in what a person types ("nothing from dairy", "under $5", "not soda again") as filters, and what is left to say.

A small deterministic parser: a phrase counts when it names something the catalog can be filtered by, everything else stays
in the text for the model. Holds the reading only; which rows pass is `item_filter.py`. Our choice.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

from sigma_core.yaml_files import parse_yaml

WORDS_FILE: Final = Path(__file__).parent / "constraint_words.yaml"
MOST_WORDS: Final = 5  # longest name looked for after "nothing from"
Known: TypeAlias = Callable[[str], bool]
"""Whether some items can be told apart by these words."""

_CENT: Final = 0.01
_NUMBER: Final = r"((?:\d{1,3}(?:,\d{3})+(?:\.\d{1,2})?|\d{1,6}(?:[.,]\d{1,2})?)(?!\d|[.,]\d))"
_MONEY: Final = r"(?:[$€£]|dollars?\b|bucks\b|euros?\b|usd\b)"
_AMOUNT: Final = rf"(?:[$€£]\s?{_NUMBER}|{_NUMBER}\s?{_MONEY})"
_BETWEEN: Final = re.compile(
    rf"(?<!\w)(?:(?:between|from)\s+)?{_AMOUNT}\s?(?:-|to\b|and\b)\s?{_AMOUNT}", re.I
)
_BARE_BETWEEN: Final = re.compile(
    rf"\b(?:between|from)\s+[$€£]?\s?{_NUMBER}\s?(?:-|to\b|and\b)\s?{_AMOUNT}", re.I
)
_LEAD: Final = r"(?:(?:that\s+)?(?:costs?|costing|priced|is|are|for)\s+)?"
_AT_MOST: Final = re.compile(
    rf"\b{_LEAD}(?:at most|up to|(?:no|not) more than|not over|not above|maximum(?: of)?|max)\s+{_AMOUNT}",
    re.I,
)
_BELOW: Final = re.compile(rf"\b{_LEAD}(?:under|below|less than|cheaper than)\s+{_AMOUNT}", re.I)
_AT_LEAST: Final = re.compile(
    rf"\b{_LEAD}(?:at least|(?:no|not) less than|not under|minimum(?: of)?|min)\s+{_AMOUNT}", re.I
)
_ABOVE: Final = re.compile(rf"\b{_LEAD}(?:over|above|more than|dearer than)\s+{_AMOUNT}", re.I)
_OWNED: Final = re.compile(
    r"\b(?:nothing|not|no|none)\s+(?:of\s+)?(?:what\s+|that\s+|things?\s+|items?\s+)?(?:i|we|they)(?:'ve|\s+have|\s+had)?"
    r"(?:\s+(?:already|ever))?\s+(?:bought|had|have|own|took|taken|know)\b(?:\s+(?:before|already))?|\bno repeats\b",
    re.I,
)
_EXCLUDE: Final = re.compile(
    r"\b(?:nothing\s+(?:from|with|of|containing)|(?:any|every)thing\s+but|but\s+not?|no\s+more|without(?:\s+any)?"
    r"|except(?:\s+for|\s+from)?|excluding|exclude|leave\s+out|avoid|skip|not\s+from|(?:don't|do\s+not)\s+want(?:\s+any)?"
    r"|nothing|never|not|no)\b\s+",
    re.I,
)
_ONLY: Final = re.compile(
    r"\b(?:nothing\s+but|only(?:\s+from)?|limited\s+to|exclusively(?:\s+from)?)\s+", re.I
)
_THOUSANDS: Final = re.compile(r",(?=\d{3})")
_WORD: Final = re.compile(r"[A-Za-z0-9&'-]+")
_JOIN: Final = re.compile(r"\s*(?:,\s*(?:or|and|nor)?|\bor\b|\band\b|\bnor\b)\s*", re.I)
_SMALL: Final = re.compile(r"^(?:any|the|more|from|of|some|my|our)\s+", re.I)
_AGAIN: Final = re.compile(r"^\s+(?:again|any\s?more|this time)\b", re.I)
_STOP: Final = frozenset(
    (
        *(
            "item",
            "items",
            "thing",
            "things",
            "product",
            "products",
            "stuff",
            "something",
            "anything",
            "nothing",
        ),
        *(
            "other",
            "others",
            "more",
            "new",
            "it",
            "them",
            "that",
            "this",
            "these",
            "those",
            "one",
            "ones",
            "to",
            "for",
        ),
        *(
            "in",
            "on",
            "of",
            "from",
            "with",
            "the",
            "a",
            "an",
            "and",
            "or",
            "but",
            "not",
            "no",
            "please",
            "want",
            "need",
        ),
        *("good", "better", "best"),
    )
)
_POLITE: Final = frozenset(("please", "thanks", "thank", "you", "and", "but", "or", "with"))


@dataclass(frozen=True)
class Understood:
    """What was read out of a text.

    Attributes:
        text: the rest, for the model; "" when nothing is left.
        without: words of what must not be listed, as typed.
        only: words of what alone may be listed (any of them), as typed.
        min_price, max_price: bounds, both included; None for none.
        hide_owned: True when items bought before must not be listed.
    """

    text: str
    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    min_price: float | None = None
    max_price: float | None = None
    hide_owned: bool = False

    def told(self) -> tuple[str, ...]:
        """A line a constraint, for the person who typed it."""
        out = [f"nothing from {words}" for words in self.without]
        out += [f"only {words}" for words in self.only]
        out += [] if self.min_price is None else [f"price at least {self.min_price:.2f}"]
        out += [] if self.max_price is None else [f"price at most {self.max_price:.2f}"]
        return tuple(out + (["nothing bought before"] if self.hide_owned else []))


def understand(text: str, known: Known) -> Understood:
    """Read the constraints of `text`; without any, `text` comes back as it is. The rest holds no constraint any more."""
    found = Understood(text)
    while (more := _step(found, known)) is not None:
        found = more
    return found


def _step(found: Understood, known: Known) -> Understood | None:
    """`found` with one more constraint read out of its text; None when there is none."""
    for read in (_price, _owned, _named):
        if (more := read(found, known)) is not None:
            return more
    return None


def _price(found: Understood, _: Known) -> Understood | None:
    for pattern in (_BETWEEN, _BARE_BETWEEN):
        if match := pattern.search(found.text):
            low, high = sorted(_amounts(match))
            return _bounded(found, match, low, high)
    for pattern, is_upper, shift in (
        (_AT_MOST, True, 0.0), (_AT_LEAST, False, 0.0), (_BELOW, True, -_CENT), (_ABOVE, False, _CENT)
    ):  # fmt: skip
        if match := pattern.search(found.text):
            value = max(_amounts(match)[0] + shift, 0.0)
            return _bounded(found, match, None if is_upper else value, value if is_upper else None)
    return None


def _amounts(match: re.Match[str]) -> list[float]:
    return [_value(group) for group in match.groups() if group is not None]


def _value(number: str) -> float:
    """Of "1,500", "1,234.50", "4.99" or "4,99": a comma before three digits parts thousands, any other is a decimal one."""
    return float(_THOUSANDS.sub("", number).replace(",", "."))


def _bounded(found: Understood, match: re.Match[str], low: float | None, high: float | None) -> Understood:
    """The tighter bound of each kind wins."""
    lows = [value for value in (found.min_price, low) if value is not None]
    highs = [value for value in (found.max_price, high) if value is not None]
    return _cut(
        found, match.start(), match.end(),
        min_price=round(max(lows), 2) if lows else None, max_price=round(min(highs), 2) if highs else None,
    )  # fmt: skip


def _owned(found: Understood, _: Known) -> Understood | None:
    match = _OWNED.search(found.text)
    return _cut(found, match.start(), match.end(), hide_owned=True) if match else None


def _named(found: Understood, known: Known) -> Understood | None:
    """The first "nothing from X, Y or Z" or "only X" of which X is known."""
    for pattern, field in ((_ONLY, "only"), (_EXCLUDE, "without")):
        for match in pattern.finditer(found.text):
            names, end = _names(found.text, match.end(), known)
            if names:
                before = getattr(found, field)
                return _cut(found, match.start(), end, **{field: tuple(dict.fromkeys((*before, *names)))})
    return None


def _names(text: str, start: int, known: Known) -> tuple[list[str], int]:
    """Known names that stand at `start`, joined by commas and conjunctions, and where they end."""
    names: list[str] = []
    end = start
    while True:
        if small := _SMALL.match(text[start:]):
            start += small.end()
        stop = _longest(text, start, known)
        if stop is None:
            return names, end
        names.append(text[start:stop].lower())
        if again := _AGAIN.match(text[stop:]):
            stop += again.end()
        end = stop
        joined = _JOIN.match(text[stop:])
        if joined is None or not joined.group().strip():
            return names, end
        start = stop + joined.end()


def _longest(text: str, start: int, known: Known) -> int | None:
    """End of the longest known run of words at `start`; None when even the first word is not known."""
    ends: list[int] = []
    at = start
    while len(ends) < MOST_WORDS and (word := _WORD.match(text, at)):
        ends.append(word.end())
        space = re.match(r" +", text[word.end() :])
        if not space:
            break
        at = word.end() + space.end()
    for stop in reversed(ends):
        words = text[start:stop].lower()
        if not set(words.split()) <= _STOP and words.split()[-1] not in _STOP and known(words):
            return stop
    return None


def _cut(found: Understood, start: int, end: int, **changes: object) -> Understood:
    """`found` with `changes` and without the span, tidied up."""
    values = {
        name: getattr(found, name) for name in ("without", "only", "min_price", "max_price", "hide_owned")
    }
    left, right = found.text[:start].rstrip(" ,;"), found.text[end:].lstrip(" ,;")
    left = re.sub(r"(?:^|[\s,;])(?:and|but|with|or)$", "", left, flags=re.I).rstrip(" ,;")
    right = (
        re.sub(r"^(?:and|but|or)\b\s*", "", right, flags=re.I) if not left or left[-1] in ".!?:" else right
    )
    joined = f"{left} {right}" if left and right and right[0] not in ".!?" else left + right
    text = re.sub(r"\s{2,}", " ", joined).strip(" ,;").lstrip(".!?: ")
    is_empty = {word.lower() for word in _WORD.findall(text)} <= _POLITE
    return Understood("" if is_empty else text, **(values | changes))


@lru_cache(maxsize=1)
def group_rules() -> dict[str, tuple[str, ...]]:
    """Words of constraint_words.yaml -> their rules, in the syntax of phrases.yaml."""
    return {str(word): tuple(rules) for word, rules in parse_yaml(WORDS_FILE.read_text()).items()}
