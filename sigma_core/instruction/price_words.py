"""Prices in typed words: "under $5", "between $2 and 5", "nothing over $1.5k". Holds the reading only.

A bound that is negated is the other bound ("nothing over $10" is at most 10). Where a negation may be meant for something else
("no beer over $5"), and where an amount is no price of an item ("$5 off", "$5/lb"), nothing is read. Our choice.
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

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

_CENT: Final = 0.01
_SIGN: Final = r"(?:[$€£¥￥]|(?<!\w)(?:eur|usd|gbp|chf|jpy)\b)"
_UNIT: Final = r"(?:(?:dollars?|bucks|euros?|yen|eur|usd|gbp|chf|jpy)\b|円)"
_MONEY: Final = rf"(?:{_SIGN}|{_UNIT})"
_NUMBER: Final = (
    r"((?:\d{1,3}(?:,\d{3})+(?:\.\d{1,2})?|\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,6}(?:[.,]\d{1,2})?)(?!\d|[.,]\d)"
    r"(?:\s?thousand\b|k\b)?+)"
)
_TAIL: Final = (  # what must not follow: more of the number, a measure, what a discount or a sum is called
    r"(?!\w|\s?/|\s?[-–—]\s?[$€£¥￥]?\d|\s\d{3}\b|\s?(?:million|billion|hundred|grand|m|bn)\b"
    r"|\s+(?:off|discount|back|cashback|worth|cheaper|more|less|extra|gift\s?cards?|coupons?|vouchers?)\b"
    r"|\s+(?:per|an?|the)\s+(?:lbs?|pound|kg|kilo|oz|ounce|gram|g|lit(?:er|re)|l|gallon|person|head|serving|day|week|month|year)\b)"
)
_AMOUNT: Final = rf"(?:{_SIGN}\s?{_NUMBER}(?:\s?{_UNIT})?+|{_NUMBER}\s?{_MONEY}){_TAIL}"
_SIDE: Final = rf"(?:{_SIGN}\s?)?{_NUMBER}(?:\s?{_MONEY})?+"
_LED_RANGE: Final = re.compile(
    rf"(?<!\w)(?:between|from)\s+{_SIDE}\s?(?:[-–—]|to\b|and\b)\s?{_SIDE}{_TAIL}", re.I
)
_DASHED_RANGE: Final = re.compile(rf"(?<![\w$€£¥￥.,-]){_SIDE}\s?[-–—]\s?{_SIDE}{_TAIL}", re.I)
_TO_RANGE: Final = re.compile(
    rf"(?<![\w$€£¥￥.,-])(?:{_SIGN}\s?{_NUMBER}|{_NUMBER}\s?{_MONEY})\s?to\s{_AMOUNT}", re.I
)
_LEAD: Final = r"(?:(?:that\s+)?(?:costs?|costing|priced|is|are|for)\s+)?"
_BOUNDS: Final = tuple(
    (re.compile(rf"\b{_LEAD}(?:{words})\s+{_AMOUNT}", re.I), is_upper, is_turnable)
    for words, is_upper, is_turnable in (
        (r"at most|up to|(?:no|not) more than|not over|not above|maximum(?: of)?|max", True, False),
        (r"at least|(?:no|not) less than|not under|not below|minimum(?: of)?|min", False, False),
        (r"under|below|less than|cheaper than", True, True),
        (r"over|above|more than|dearer than", False, True),
    )
)
_THOUSANDS: Final = re.compile(r",(?=\d{3})")
_POINTED: Final = re.compile(r"\.(?=\d{3})")  # of a number that ends in a decimal comma: "1.099,00"
_MENTIONED: Final = re.compile(rf"{_SIGN}\s?\d(?:[\d.,]*\d)?|\d(?:[\d.,]*\d)?\s?{_MONEY}", re.I)
_COUNTED: Final = re.compile(
    r"\s?-?(?:packs?|pcs|pieces?|count|ct|oz|lbs?|pounds?|kg|g|ml|l|items?|people|inch|%)\b", re.I
)
_JUDGED: Final = re.compile(r"\s+(?:is|are|was|were|will|would|seems?|feels?|sounds?|i)\b", re.I)
_ALSO: Final = re.compile(
    r"\s*,?\s*(or|nor|and)\s+(?:(?:anything|something|it|is|are|that|costs?|costing)\s+)*", re.I
)
_FILLERS: Final = word_set("""a an any anything everything stuff thing things item items product products one ones of to for the in at with me us i
    we it it's they they're them that which i'm i'd be is are was being been cost costs costing priced pay paying spend spends spending
    buy buying show give go going want wants wanting looking look interested willing afford should must would could can will please
    really ever penny cent dollar showing prefer suggest recommend recommending list include including offer if when see out""")
_LINKS: Final = word_set("""i we it they that which do does did can could will would should must may is are am was i'd i'm i'll it's rather prefer please want
    need show give me us like just really to be""")
_AVOIDING: Final = word_set(
    "avoid avoiding skip exclude excluding without hide remove refuse hate dislike ignore except but stop"
)
_OUT: Final = word_set("leave filter rule cut")
_ABLE: Final = word_set("can't cannot cant couldn't couldnt")
_FOUND: Final = word_set("there there's theres have has had got get found find see saw you who is are was")
_VAGUE: Final = word_set("hardly rarely seldom barely nobody few needn't neednt")
_SHOWING: Final = word_set("buy buying show give see list offer suggest recommend")
_DEAR: Final = word_set("expensive pricey costly")
_NO_KIND: Final = (
    word_set(  # "nothing fancy under $5" speaks of a kind, "nothing cheap under $5" of the price
        "cheap cheaper selling sells sold listed marked valued retailing worth decent good left please or and"
    )
)
_TRIED: Final = word_set("bought had tried eaten ordered seen taken before yet already ever")
_GOODS: Final = word_set("item items product products thing things stuff")
_DEALS: Final = word_set(
    "save saves saving savings discount discounts shipping delivery orders coupon coupons"
)
_OF_A_DEAL: Final = word_set("on of for with to at by me us is are")
_LIMITS: Final = word_set("under below over above than least most to max maximum min minimum")


class _Stand(Enum):
    """How a bound is meant, by the words before it."""

    PLAIN = "as it says"
    TURNED = "as its opposite"
    OPEN = "one cannot tell"


class Bound(NamedTuple):
    """A price that was read, and the span of the text that says it. The bounds are included; None for none."""

    start: int
    end: int
    low: float | None
    high: float | None


class Left(NamedTuple):
    """A price that was not read: from the first word that may belong to it to its end; a range or an upper bound is within."""

    start: int
    end: int
    is_within: bool


class _Found(NamedTuple):
    match: re.Match[str]
    is_range: bool
    is_upper: bool = False
    is_turnable: bool = False


class Prices(NamedTuple):
    """The prices of a text that can only be meant one way, in order, and those that were left. Spans of `read` do not overlap."""

    read: list[Bound]
    left: list[Left]


def read_prices(text: str) -> Prices:
    """What the text says of prices. Bounds that exclude each other ("under $5 or over $20") are all left."""
    read: list[Bound] = []
    left: list[Left] = []
    before: tuple[_Found, _Stand] | None = None
    for found in _phrases(text):
        stand, start = _stand(text, found, before)
        before = (found, stand)
        bound = None if stand is _Stand.OPEN else _bound(found, stand, start)
        if bound:
            read.append(bound)
        else:
            left.append(_left(text, found))
    low = max((bound.low for bound in read if bound.low is not None), default=0.0)
    high = min((bound.high for bound in read if bound.high is not None), default=low)
    if low <= high:
        return Prices(read, left)
    return Prices([], [_left(text, found) for found in _phrases(text)])


def told_unread(text: str) -> str:
    """A line for who typed it when what is left of a text names a sum of money; "" where it names none.

    Bounds are read in English alone, so "unter 20 Euro" is no filter, and nobody should take the list for one under 20.
    """
    sums = ", ".join(repr(found.group()) for found in _MENTIONED.finditer(text))
    return (
        f'no price was filtered by {sums}: bounds are read in English, like "under €20", where items have prices; or set a bound'
        if sums
        else ""
    )


def _left(text: str, found: _Found) -> Left:
    words = clause_before(text, found.match.start())[-REACH:]
    start = words[0].start() if words else found.match.start()
    return Left(start, found.match.end(), found.is_range or found.is_upper)


def _phrases(text: str) -> list[_Found]:
    """Ranges and bounds in order; of two that overlap the one whose pattern stands first."""
    out: list[_Found] = []
    for found in _candidates(text):
        start, end = found.match.span()
        if all(end <= other.match.start() or start >= other.match.end() for other in out):
            out.append(found)
    return sorted(out, key=lambda found: found.match.start())


def _candidates(text: str) -> Iterator[_Found]:
    for pattern in (_LED_RANGE, _DASHED_RANGE, _TO_RANGE):
        yield from (
            _Found(match, is_range=True) for match in pattern.finditer(text) if _is_range(text, match)
        )
    for pattern, is_upper, is_turnable in _BOUNDS:
        yield from (_Found(match, False, is_upper, is_turnable) for match in pattern.finditer(text))


def _is_range(text: str, match: re.Match[str]) -> bool:
    """Whether it is about money, and its second number no count ("$5-10 pack")."""
    first, second = (place for place, number in enumerate(match.groups(), start=1) if number is not None)
    around = text[match.end(first) : match.start(second)] + text[match.end(second) : match.end()]
    is_money = re.search(_MONEY, around, re.I) is not None
    bare = not re.search(_SIGN, text[match.end(first) : match.start(second)]) and match.end() == match.end(
        second
    )
    is_money = is_money or re.search(rf"{_SIGN}\s?$", text[: match.start(first)], re.I) is not None
    return is_money and not (bare and _COUNTED.match(text, match.end()))


def _bound(found: _Found, stand: _Stand, start: int) -> Bound | None:
    end = found.match.end()
    numbers = [number for number in found.match.groups() if number is not None]
    if found.is_range:
        limits = _limits(*numbers)
        return Bound(start, end, *limits) if limits else None
    value = _value(numbers[0])
    is_upper = found.is_upper != (stand is _Stand.TURNED)
    if found.is_turnable and stand is _Stand.PLAIN:
        value = max(value - _CENT if is_upper else value + _CENT, 0.0)
    value = round(value, 2)
    return Bound(start, end, None if is_upper else value, value if is_upper else None)


def _limits(first: str, second: str) -> tuple[float, float] | None:
    """Both ends of a range; None for "$1-2k", which may begin at 1 or at 1,000."""
    low, high = _value(first), _value(second)
    if _is_thousands(first) != _is_thousands(second):
        least = _value(first) < _value(_bare(second)) if _is_thousands(second) else high < low
        if least or low > high:
            return None
    return min(low, high), max(low, high)


def _is_thousands(number: str) -> bool:
    return not number[-1].isdigit()


def _bare(number: str) -> str:
    return re.sub(r"\s?(?:thousand|k)$", "", number, flags=re.I)


def _value(number: str) -> float:
    """Of "1,500", "1,234.50", "1.099,00", "4.99", "4,99" or "1.5k": a comma before three digits parts thousands, any other is a
    decimal one.
    """
    digits = _bare(number)
    if "." in digits and digits.rfind(",") > digits.find("."):
        digits = _POINTED.sub("", digits)
    value = float(_THOUSANDS.sub("", digits).replace(",", "."))
    return value * 1000 if _is_thousands(number) else value


def _stand(text: str, found: _Found, before: tuple[_Found, _Stand] | None) -> tuple[_Stand, int]:
    """How it is meant, and where the words that say it begin."""
    match = found.match
    words = clause_before(text, match.start())
    said = lower_words(words)
    is_time = (
        said[-1:] and said[-1].isdigit() and match.group().lower().startswith("min")
    )  # "30 min $5 meals"
    if (
        is_time
        or REFUSED.match(text, match.end())
        or (not found.is_upper and _JUDGED.match(text, match.end()))
        or _is_deal(said)
        or (found.is_range and _LIMITS & set(said[-1:]))
    ):
        return _Stand.OPEN, match.start()
    if before and (also := _ALSO.fullmatch(text, before[0].match.end(), match.start())):
        stand = _continued(found, *before, also.group(1).lower())
        return stand, also.start() if stand is _Stand.TURNED else match.start()
    stand, first = _negated(found, said)
    start = words[first].start() if first < len(words) else match.start()
    is_asked = bool(SENTENCE_START.search(text[:start])) and bool(ASKED_BACK.match(text, match.end()))
    if is_asked and not found.is_range and (stand is _Stand.TURNED or not (words or found.is_upper)):
        return _Stand.OPEN, match.start()
    if not words and re.search(r"\b(?:no|not|nothing|none|never)\s*,\s*$", text[: match.start()], re.I):
        return _Stand.OPEN, match.start()  # "nothing, really nothing, over $5"
    return stand, start if stand is _Stand.TURNED else match.start()


def _is_deal(said: list[str]) -> bool:
    """Whether the amount is one of a discount or of a whole order."""
    while said and said[-1] in _OF_A_DEAL:
        said = said[:-1]
    is_order = said[-1:] == ["order"] and bool({"a", "an", "any", "every", "each", "your"} & set(said[-2:-1]))
    return is_order or bool(_DEALS & set(said[-1:]))


def _continued(found: _Found, before: _Found, stand: _Stand, joined: str) -> _Stand:
    """Of "or over $20" after "nothing under $5": a negation holds for what goes the other way as well."""
    if stand is _Stand.OPEN:
        return _Stand.OPEN
    denied = stand is _Stand.TURNED or re.search(r"\b(?:no|not)\b", before.match.group(), re.I)
    upper = before.is_upper if before.is_turnable else not before.is_upper
    if denied and found.is_turnable and not before.is_range and found.is_upper != upper:
        return _Stand.TURNED
    return _Stand.OPEN if joined == "nor" else _Stand.PLAIN


def _negated(found: _Found, said: list[str]) -> tuple[_Stand, int]:
    """How a phrase is meant after the words `said`, and the first of them that belongs to it."""
    if asks_why(said) and "why not" not in " ".join(said):
        return _Stand.OPEN, len(said)
    between: list[str] = []
    for place in range(len(said) - 1, max(-1, len(said) - 1 - REACH), -1):
        word = said[place]
        is_some = word == "few" and said[max(0, place - 1)] == "a"
        if (word in _VAGUE and not is_some) or (word in _DEAR and not found.is_upper):
            return _Stand.OPEN, len(said)
        if word in ("and", "&") and not {"any", "anything"} & set(between) and _starts_anew(between):
            break
        if (
            is_negation(word)
            or word in _AVOIDING
            or (word == "out" and said[place - 1 : place] and said[place - 1] in _OUT)
        ):
            return _of_negation(found, said, place, between)
        between.insert(0, word)
    is_condition = bool({"if", "when", "unless", "whether"} & set(between[-3:]))
    is_condition &= "possible" not in between and between[-2:] != ["you", "can"]
    return (_Stand.OPEN if is_condition else _Stand.PLAIN), len(said)


def _starts_anew(between: list[str]) -> bool:
    return set(between) <= _FILLERS or bool({"want", "need", "something", "give", "show"} & set(between))


def _of_negation(found: _Found, said: list[str], place: int, between: list[str]) -> tuple[_Stand, int]:
    word, last = said[place], said[place - 1] if place else ""
    earlier = said[max(0, place - REACH) : place]
    is_double = any(is_negation(other) or other in _AVOIDING for other in earlier)
    is_short = set(between) <= _FILLERS
    if word == "not" and last == "why":
        return (_Stand.OPEN if is_double else _Stand.PLAIN), len(said)  # a suggestion
    if not found.is_turnable:  # "no soda, at most $5" is clear, "nothing between $5 and $10" no single bound
        is_clear = not is_short and not is_double and (word == "without" or not found.is_range)
        return (_Stand.PLAIN if is_clear else _Stand.OPEN), len(said)
    if not is_short:
        is_about_else = not is_double and found.is_upper and _is_of_a_word(said, place, between)
        return (_Stand.PLAIN if is_about_else else _Stand.OPEN), len(said)
    if is_double or _is_told(found, word, last, between):
        return _Stand.OPEN, len(said)
    first = place - 1 if word == "out" else place
    while first and said[first - 1] in _LINKS:
        first -= 1
    return _Stand.TURNED, first


def _is_of_a_word(said: list[str], place: int, between: list[str]) -> bool:
    """Whether a negation is about what stands before the price: "without soda", "nothing fancy", "something I haven't bought"."""
    word, last = said[place], said[place - 1 : place]
    if word in ("without", *_AVOIDING):
        return word == "without"
    if between[0] in _DEAR or (last in (["i"], ["we"]) and place > 1 and set(between) <= _TRIED):
        return True
    if between[0] in ("too", "very", "so", "overly"):
        return len(between) > 1 and between[1] not in ("much", "far", "long", "many")
    is_told = last and last[0] in _FOUND
    return word in ("nothing", "not") and len(between) == 1 and not (is_told or between[0] in _NO_KIND)


def _is_told(found: _Found, word: str, last: str, between: list[str]) -> bool:
    """Whether somebody tells what there is ("there is nothing under $5", "can't get anything under $5") instead of wishing."""
    if last in _FOUND and (word in ("nothing", "none", "no") or last in ("you", "who", "there")):
        return True
    if word == "no" and not _GOODS & set(between[:1]):  # "no I want over $10"
        return True
    if word == "not" and between[:1] in (["that"], ["it"], ["them"]):
        return True
    if word in _ABLE and _SHOWING & set(between):
        return True
    if "see" in between and "want" not in between:
        return True
    if "everything" in between and word not in (*_AVOIDING, "out"):
        return True
    said = found.match.group().lower()
    return word in ("nothing", "none") and not between and said.startswith(("costs ", "cost ", "is ", "are "))
