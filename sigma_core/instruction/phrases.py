"""Shoppers' phrases and the product types that answer them.

Reads `phrases.yaml` (the rules and their syntax are explained there) and says which phrase a type of a catalog answers.
No targets and no wording here. Where the written phrases answer for almost nothing, phrases are made up from the
catalog and marked pseudo. Our choice; the paper's queries are its users' own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from sigma_core import columns as c
from sigma_core.text_words import text_words
from sigma_core.yaml_files import parse_yaml

PHRASES_FILE: Final = Path(__file__).parent / "phrases.yaml"
MIN_COVERAGE: Final = 0.2  # share of the catalog that written phrases must answer for, or they are not used
TABLE_SCHEMA: Final[dict[str, Any]] = {
    c.PHRASE: pl.String,
    c.CATEGORY: pl.String,
    c.ITEM_TYPE: pl.String,
    c.IS_HELD_OUT_PHRASE: pl.Boolean,
    c.IS_PSEUDO: pl.Boolean,
}


class PhraseError(ValueError):
    """phrases.yaml holds a phrase that cannot be read."""


@dataclass(frozen=True)
class Term:
    """One word of a rule: a name must hold any of `options` (a stem, or "=word" for a whole word), or none of them."""

    options: frozenset[str]
    negated: bool

    def holds(self, keys: frozenset[str]) -> bool:
        """Whether the term is true of a name, given its `name_keys`."""
        return self.options.isdisjoint(keys) == self.negated


@dataclass(frozen=True)
class Rule:
    """The words a type's category must hold, those its own name must, and (a rule without a slash) both together."""

    category: tuple[Term, ...]
    item_type: tuple[Term, ...]
    both: tuple[Term, ...]

    def holds(self, category: frozenset[str], item_type: frozenset[str]) -> bool:
        """Whether a type answers, given the `name_keys` of its category and of its own name."""
        return (
            all(term.holds(category) for term in self.category)
            and all(term.holds(item_type) for term in self.item_type)
            and all(term.holds(category | item_type) for term in self.both)
        )


@dataclass(frozen=True)
class Phrase:
    """One phrase. `is_held_out` ones are never trained on."""

    text: str
    rules: tuple[Rule, ...]
    is_held_out: bool
    is_pseudo: bool = False


class PhraseBook:
    """Phrases, findable by the words of a type: a rule is looked at only when its first word stands in the name."""

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        self.phrases = tuple(phrases)
        self._known: dict[tuple[str, str], tuple[Phrase, ...]] = {}  # the same types return every day
        self._by_word: dict[str, list[tuple[int, Rule]]] = {}
        for at, phrase in enumerate(self.phrases):
            for rule in phrase.rules:
                first = next(t for t in (*rule.category, *rule.item_type, *rule.both) if not t.negated)
                for word in first.options:
                    self._by_word.setdefault(word, []).append((at, rule))

    def answered(self, category: str, item_type: str) -> tuple[Phrase, ...]:
        """The phrases that the type answers, in file order. One that is exactly the type's name is left out."""
        if (category, item_type) not in self._known:
            self._known[category, item_type] = self._look_up(category, item_type)
        return self._known[category, item_type]

    def _look_up(self, category: str, item_type: str) -> tuple[Phrase, ...]:
        keys = name_keys(category), name_keys(item_type)
        candidates = (pair for word in keys[0] | keys[1] for pair in self._by_word.get(word, ()))
        found = sorted({at for at, rule in candidates if rule.holds(*keys)})
        own = name_words(item_type), name_words(f"{category} {item_type}")
        return tuple(p for p in (self.phrases[at] for at in found) if name_words(p.text) not in own)


def name_words(name: str) -> tuple[str, ...]:
    """Lower-case words and numbers of a name, in any script."""
    return tuple(text_words(name))


def name_keys(name: str) -> frozenset[str]:
    """Every beginning of every word of the name, and every whole word with "=" in front."""
    words = name_words(name)
    return frozenset(word[:n] for word in words for n in range(1, len(word) + 1)) | {
        f"={word}" for word in words
    }


def parse_rule(text: str) -> Rule:
    """A rule of phrases.yaml.

    Raises:
        PhraseError: more than one slash, or no word that must be there.
    """
    sides = text.split("/")
    terms = [tuple(_term(word) for word in side.split()) for side in sides]
    if len(sides) > 2 or all(term.negated for side in terms for term in side):
        raise PhraseError(f"{PHRASES_FILE.name}: rule {text!r} must be 'category words / type words'.")
    return Rule((), (), terms[0]) if len(sides) == 1 else Rule(terms[0], terms[1], ())


def _term(word: str) -> Term:
    return Term(frozenset(word.removeprefix("-").lower().split("|")), word.startswith("-"))


@lru_cache(maxsize=1)
def load_phrases() -> tuple[PhraseBook, PhraseBook]:
    """The written phrases and the pseudo ones, each in file order.

    Raises:
        PhraseError: a phrase without rules, or with a split other than train and test.
    """
    content = parse_yaml(PHRASES_FILE.read_text())
    return _read(content["phrases"], is_pseudo=False), _read(content["pseudo_phrases"], is_pseudo=True)


def _read(rows: dict[str, Any], *, is_pseudo: bool) -> PhraseBook:
    phrases = []
    for text, row in rows.items():
        if row.get("split") not in ("train", "test") or not row.get("rules"):
            raise PhraseError(
                f"{PHRASES_FILE.name}: {text!r} needs rules and a split, train or test; it has {row}."
            )
        rules = tuple(parse_rule(rule) for rule in row["rules"])
        phrases.append(Phrase(str(text), rules, row["split"] == "test", is_pseudo))
    return PhraseBook(phrases)


def phrase_table(catalog: pl.DataFrame) -> pl.DataFrame:
    """Which types of the catalog answer which phrase.

    Written phrases where they answer for `MIN_COVERAGE` of the items; otherwise the pseudo phrases on genres; where
    those answer for too little as well, the noun of each type's name ("headphones" for "wireless headphones").

    Args:
        catalog: frame with CATEGORY and ITEM_TYPE, one row an item.

    Returns:
        frame of `TABLE_SCHEMA`, distinct, sorted by phrase, category, type; null names never appear.
    """
    types = (
        catalog.group_by(_KEY).len(_ITEMS).filter(pl.any_horizontal(pl.col(_KEY).is_not_null())).sort(_KEY)
    )
    for book in load_phrases():
        table = _table(types, book)
        covered = types.join(table, on=_KEY, how="semi", nulls_equal=True)[_ITEMS].sum()
        if covered >= max(MIN_COVERAGE * catalog.height, 1):
            return table
    return _noun_table(types)


def answering_items(catalog: pl.DataFrame, split: Literal["train", "test"]) -> dict[str, list[str]]:
    """Phrase -> sorted ids of the catalog's items that answer it, for the phrases of one split (file's `split`)."""
    table = phrase_table(catalog).filter(pl.col(c.IS_HELD_OUT_PHRASE) == (split == "test"))
    pairs = catalog.select(c.ITEM_ID, *_KEY).join(table, on=_KEY, nulls_equal=True)
    grouped = pairs.group_by(c.PHRASE).agg(pl.col(c.ITEM_ID).unique().sort()).sort(c.PHRASE)
    return dict(grouped.iter_rows())


_KEY: Final = (c.CATEGORY, c.ITEM_TYPE)
_ITEMS: Final = "items"


def _table(types: pl.DataFrame, book: PhraseBook) -> pl.DataFrame:
    return _sorted(
        (phrase.text, category, item_type, phrase.is_held_out, phrase.is_pseudo)
        for category, item_type in types.select(_KEY).iter_rows()
        for phrase in book.answered(category or "", item_type or "")
    )


def _noun_table(types: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for category, item_type in types.select(_KEY).iter_rows():
        words = name_words(item_type or category)
        if words:
            phrase = words[-1] if len(words) > 1 else f"some {words[0]}"
            rows.append((phrase, category, item_type, _in_test_half(phrase), True))
    return _sorted(rows)


def _in_test_half(phrase: str) -> bool:
    return blake2b(phrase.encode(), digest_size=1).digest()[0] % 2 == 1


def _sorted(rows: Iterable[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=TABLE_SCHEMA, orient="row").sort(c.PHRASE, *_KEY)
