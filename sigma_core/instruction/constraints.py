"""Constraints in what a person types ("nothing from dairy", "under $5", "not soda again") as filters, and what is left to say.

A small deterministic parser: a phrase counts when it names something the catalog can be filtered by, everything else stays
in the text for the model, and so does what may be meant the other way round ("can't live without coffee"). Reads English.
Prices are `price_words.py`; which rows pass is `item_filter.py`. Our choice.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path
from typing import Final, TypeAlias

from sigma_core.instruction.clauses import (
    ASKED_BACK,
    REACH,
    REFUSED,
    SENTENCE_START,
    asks_why,
    clause_before,
    is_negation,
    lower_words,
    word_set,
)
from sigma_core.instruction.price_words import Left, read_prices
from sigma_core.yaml_files import parse_yaml

WORDS_FILE: Final = Path(__file__).parent / "constraint_words.yaml"
MOST_WORDS: Final = 5  # longest name looked for after "nothing from"
Known: TypeAlias = Callable[[str], bool]
"""Whether some items can be told apart by these words."""

_OWNED: Final = re.compile(
    r"\b(?:nothing|not|no|none)\s+(?:of\s+)?(?:what\s+|that\s+|things?\s+|items?\s+)?(?:i|we|they)(?:'ve|\s+have|\s+had)?"
    r"(?:\s+(?:already|ever))?\s+(?:bought|had|have|own|took|taken|know)\b(?!['’]|\s+(?:not|never|to|no)\b)(?:\s+(?:before|already))?|\bno repeats\b",
    re.I,
)
_EXCLUDE: Final = re.compile(
    r"\b(?:nothing\s+(?:from|with|of|containing)|(?:any|every)thing\s+but|but\s+not?|no\s+more|without(?:\s+any)?"
    r"|except(?:\s+for|\s+from)?|excluding|exclude|leave\s+out|avoid|skip|not\s+from|(?:don['’]?t|do\s+not)\s+want(?:\s+any)?"
    r"|nothing|never|not|no)\b\s+",
    re.I,
)
_ONLY: Final = re.compile(
    r"\b(?:nothing\s+but|only(?:\s+from)?|limited\s+to|exclusively(?:\s+from)?)\s+", re.I
)
_WORD: Final = re.compile(  # neither blank nor punctuation; "&", "'" and "-" may stand in one
    r"(?:[&'’-]|[^\s!-/:-@\[-`{-~€£«»¡¿\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20])+"
)
_JOIN: Final = re.compile(r"\s*(?:[,、，]\s*(?:or|and|nor)?|\bor\b|\band\b|\bnor\b)\s*", re.I)
_SMALL: Final = re.compile(r"^(?:any|the|more|from|of|some|my|our)\s+", re.I)
_AGAIN: Final = re.compile(r"^\s+(?:again|any\s?more|this time)\b", re.I)
_NOT_THE_THING: Final = re.compile(
    r"[-‐‑]\w|\s+(?:free|less|alternatives?|substitutes?|replacements?)\b", re.I
)
_TOLD: Final = re.compile(  # "I have no milk", "is there only soda", "if not soda", "with or without"
    r"(?:(?<!can )(?<!could )(?<!may )\b(?:i|we|they|you|he|she|fridge|pantry)(?:'ve|(?: (?:still|already|only))? (?:have|has|had|got))(?: got)?"
    r"|\b(?:if|or|there|there'?s|there (?:is|are|was|were)))(?: (?:only|already|still))?$"
)
_NO_TURN: Final = (
    re.compile(  # "I can't eat nuts so something without nuts", "I don't know what to cook without eggs"
        r".*\b(?:so (?:i|we|something|please|give|show|find)|(?:don't|dont) know|not sure|no idea)\b"
    )
)
_ASSURED: Final = word_set("sure long")  # "make sure there are no nuts", "as long as there is no soda"
_LEFT: Final = re.compile(  # "no milk left"
    r"\s+(?:left|at\s+home|in\s+(?:the|my|our)\s+(?:house|home|fridge|freezer|pantry|kitchen)|unless|until"
    r"|was|were|makes?|means?|if(?!\s+(?:possible|you\s+can)))\b",
    re.I,
)
_EXCEPTION: Final = re.compile(
    r",?\s+(?:without|except|excluding|besides|other\s+than|apart\s+from|aside\s+from)\b", re.I
)
_BUT: Final = re.compile(r",?\s+but\s+(?:for\s+)?", re.I)
_RHETORIC: Final = re.compile(  # "what's a party without beer", "life without chocolate", "I'm lost without coffee"
    r"\b(?:what(?:'?s| is) (?:an?|my|the) (?:party|breakfast|dinner|day|morning|evening|night|weekend|summer|home|house|kitchen)"
    r"|life|world|(?:what|where) would .*\bbe"
    r"|(?:is|are|be|am|i'm|im|feels?) (?:\w+ )?(?:hard|impossible|pointless|incomplete|lost|worse|sad|boring))$"
)
_TURNING: Final = word_set("stop stopped quit used avoid skip hardly without")
_HAVING: Final = word_set("have has had got i've we've bought")
_STOP: Final = word_set("""item items thing things product products stuff something anything nothing other others more new it them that this these those
    one ones to for in on of from with the a an and or but not no please want need good better best""")
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


def understand(text: str, known: Known, *, has_prices: bool = True) -> Understood:
    """Read the constraints of `text`; without any, `text` comes back as it is. The rest holds no constraint any more.

    Without prices (a service that sells nothing) a price in the words is no bound: no item could keep it.
    """
    found = Understood(text)
    while (more := _step(found, known, has_prices)) is not None:
        found = more
    return found


def _step(found: Understood, known: Known, has_prices: bool) -> Understood | None:
    """`found` with one more constraint read out of its text; None when there is none."""
    for read in (_price, _owned, _named) if has_prices else (_owned, _named):
        if (more := read(found, known)) is not None:
            return more
    return None


def _price(found: Understood, _: Known) -> Understood | None:
    """All prices at once: one is cut only when every other was understood where it stood. The tighter bound of each kind wins."""
    bounds = read_prices(found.text).read
    if not bounds:
        return None
    lows = [low for low in (found.min_price, *(bound.low for bound in bounds)) if low is not None]
    highs = [high for high in (found.max_price, *(bound.high for bound in bounds)) if high is not None]
    return _cut(
        found, [(bound.start, bound.end) for bound in bounds],
        min_price=max(lows, default=None), max_price=min(highs, default=None),
    )  # fmt: skip


def _owned(found: Understood, _: Known) -> Understood | None:
    match = _OWNED.search(found.text)
    if match is None or asks_why(lower_words(clause_before(found.text, match.start()))):
        return None
    if _may_be_of_a_price(match, read_prices(found.text).left, parts=True):
        return None
    return _cut(found, [match.span()], hide_owned=True)


def _named(found: Understood, known: Known) -> Understood | None:
    """The first "nothing from X, Y or Z" or "only X" of which X is known and that is meant as it stands."""
    left = read_prices(found.text).left
    for pattern, field in ((_ONLY, "only"), (_EXCLUDE, "without")):
        for match in pattern.finditer(found.text):
            parts = field == "without" and match.group().split()[0].lower() in ("no", "nothing", "without")
            if _may_be_of_a_price(match, left, parts):
                continue
            names, end = _names(found.text, match.end(), known)
            if names and _is_meant(found.text, match, end, field, known):
                before = getattr(found, field)
                return _cut(found, [(match.start(), end)], **{field: tuple(dict.fromkeys((*before, *names)))})
    return None


def _may_be_of_a_price(match: re.Match[str], left: Sequence[Left], parts: bool) -> bool:
    """Whether it belongs, perhaps, to a price that could not be read because of it ("avoid wine over $20").

    With `parts` the name and a price to stay within are two wishes: "no beer under $5" is no beer, and under $5.
    """
    return any(
        price.start < match.end() and match.start() < price.end and not (parts and price.is_within)
        for price in left
    )


def _is_meant(text: str, match: re.Match[str], end: int, field: str, known: Known) -> bool:
    """Whether the words before `match` and after the names that end at `end` leave "no X" and "only X" what they say."""
    said, after = lower_words(clause_before(text, match.start())), text[end:]
    trigger = match.group().lower().split()
    is_flat = field == "without" and trigger[0] in ("nothing", "no", "not", "never")
    is_told = _TOLD.search(" ".join(said)) and not _ASSURED & set(said)
    if asks_why(said) or is_told or _LEFT.match(after) or REFUSED.match(after):
        return False
    if (
        SENTENCE_START.search(text[: match.start()])
        and ASKED_BACK.match(after)
        and (is_flat or field == "only")
    ):
        return False  # "no soda?"
    near = _NO_TURN.sub("", " ".join(said[-REACH - 2 :])).split()[-REACH:]
    if any(map(is_negation, said[-1:])) or (not is_flat and any(map(_turns, near))):
        return False  # "not only soda", "can't live without coffee"
    if field == "only":
        return said[-1:] not in (["the"], ["than"], ["my"])
    if trigger[0] in ("without", "everything", "anything") and _RHETORIC.search(" ".join(said)):
        return False
    if trigger[0] in ("except", "excluding", "anything", "everything") and _HAVING & set(said[-2:]):
        return False  # "I have everything but milk"
    if _EXCEPTION.match(after):
        return False
    other = _BUT.match(after) if is_flat and trigger[0] != "not" else None
    return other is None or not _names(after, other.end(), known)[0]  # "no drinks but soda"


def _turns(word: str) -> bool:
    return is_negation(word) or word in _TURNING


def _names(text: str, start: int, known: Known) -> tuple[list[str], int]:
    """Known names that stand at `start`, joined by commas and conjunctions, and where they end; none of "dairy free"."""
    names: list[str] = []
    end = start
    while True:
        if small := _SMALL.match(text[start:]):
            start += small.end()
        stop = _longest(text, start, known)
        if stop is None:
            return names, end
        if _NOT_THE_THING.match(text, stop):
            return [], end
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


def _cut(found: Understood, spans: Sequence[tuple[int, int]], **changes: object) -> Understood:
    """`found` with `changes` and without the spans, which are in order, tidied up."""
    values = {
        name: getattr(found, name) for name in ("without", "only", "min_price", "max_price", "hide_owned")
    }
    starts, ends = zip(*spans, strict=True)
    pieces = [found.text[a:b] for a, b in zip((0, *ends), (*starts, len(found.text)), strict=True)]
    text = re.sub(r"\s{2,}", " ", reduce(_joined, pieces)).strip(" ,;").lstrip(".!?: ")
    is_empty = {word.lower() for word in _WORD.findall(text)} <= _POLITE
    return Understood("" if is_empty else text, **(values | changes))


def _joined(left: str, right: str) -> str:
    left, right = left.rstrip(" ,;"), right.lstrip(" ,;")
    left = re.sub(r"(?:^|[\s,;])(?:and|but|with|or)$", "", left, flags=re.I).rstrip(" ,;")
    right = (
        re.sub(r"^(?:and|but|or)\b\s*", "", right, flags=re.I) if not left or left[-1] in ".!?:" else right
    )
    return f"{left} {right}" if left and right and right[0] not in ".!?" else left + right


@lru_cache(maxsize=1)
def group_rules() -> dict[str, tuple[str, ...]]:
    """Words of constraint_words.yaml -> their rules, in the syntax of phrases.yaml."""
    return {str(word): tuple(rules) for word, rules in parse_yaml(WORDS_FILE.read_text()).items()}
