"""Which items a request may return: the eligible rows of a day's index, from names, prices, novelty, history and stock.

Used alike by `sigma recommend` and the HTTP API, before any search: step 1 opens only prefixes that hold an eligible item, so a
filter can never be broken and never leaves an empty prefix. No model. Our choice.
"""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core import columns as c
from sigma_core.instruction.constraints import Understood, group_rules, understand
from sigma_core.instruction.phrases import Rule, load_phrases, name_keys, name_words, parse_rule

# Shape legend: N rows of the index, K kinds: distinct (department, category, type, brand).
Rows = npt.NDArray[np.bool_]
_ONE_OF: Final = {
    "departments": c.DEPARTMENT,
    "categories": c.CATEGORY,
    "brands": c.BRAND,
    "price_bands": c.PRICE_BAND,
}


_STRENGTH: Final = ("none", "items", "texts")  # of history filters


class FilterError(ValueError):
    """A filter names something that no item is."""


@dataclass(frozen=True)
class ItemFilter:
    """What may be returned. Several values of one field are alternatives (of `without`: each is left out); fields add up.

    Attributes:
        departments, categories, brands, price_bands: exact names, of which an item must have one.
        only: words for categories, types, brands ("dairy"), of which one must fit; see `FilterTable.named`.
        without: words that must not fit.
        min_price, max_price: bounds of the typical unit price, included; an item without a known price passes neither.
        only_items: ids that may be returned at all (stock); None for all.
        exclude_items: ids that must not.
        only_new: items launched in the last weeks only.
        owned: items bought before: as the task says, kept, left out, or left out with all of their text; what the task leaves out
            more than that stays out, unless they are to be kept.
    """

    departments: Sequence[str] = ()
    categories: Sequence[str] = ()
    brands: Sequence[str] = ()
    price_bands: Sequence[str] = ()
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    min_price: float | None = None
    max_price: float | None = None
    only_items: Collection[str] | None = None
    exclude_items: Collection[str] = field(default_factory=tuple)
    only_new: bool = False
    owned: Literal["task", "keep", "hide_items", "hide_texts"] = "task"

    def and_understood(self, said: Understood) -> "ItemFilter":
        """Both filters at once."""
        lows = [value for value in (self.min_price, said.min_price) if value is not None]
        highs = [value for value in (self.max_price, said.max_price) if value is not None]
        hide = said.hide_owned and self.owned in ("task", "keep")
        return replace(
            self,
            only=(*self.only, *said.only),
            without=(*self.without, *said.without),
            min_price=max(lows) if lows else None,
            max_price=min(highs) if highs else None,
            owned="hide_items" if hide else self.owned,
        )


class FilterTable:
    """The items of an index with what filters look at.

    Args:
        item_ids: of the index, in row order.
        catalog: ItemCatalog frame of the day; holds every item.
        prices: ITEM_ID, PRICE: typical unit prices; items without one are unknown.
    """

    def __init__(self, item_ids: Sequence[str], catalog: pl.DataFrame, prices: pl.DataFrame) -> None:
        order = pl.DataFrame({c.ITEM_ID: item_ids}, schema={c.ITEM_ID: pl.String})
        items = order.join(catalog, on=c.ITEM_ID, how="left", maintain_order="left")
        known = prices.select(c.ITEM_ID, c.PRICE)
        self._price = (
            order.join(known, on=c.ITEM_ID, how="left", maintain_order="left")[c.PRICE]
            .cast(pl.Float64)
            .fill_null(float("nan"))
            .to_numpy()
        )
        self._rows = {item: row for row, item in enumerate(item_ids)}
        self._values = {name: items[column].fill_null("").to_numpy() for name, column in _ONE_OF.items()}
        self._names = {
            name: sorted(value for value in items[column].drop_nulls().unique().to_list() if value)
            for name, column in _ONE_OF.items()
        }
        self._is_new = items[c.IS_NEW].fill_null(False).to_numpy()
        self._group = np.unique(np.asarray(items[c.TEXT_GROUP].to_list()), return_inverse=True)[1]
        names = [
            items[column].fill_null("").to_list()
            for column in (c.DEPARTMENT, c.CATEGORY, c.ITEM_TYPE, c.BRAND)
        ]
        kinds = list(zip(*names, strict=True))
        self._kinds = list(dict.fromkeys(kinds))
        place = {kind: number for number, kind in enumerate(self._kinds)}
        self._kind_N = np.array([place[kind] for kind in kinds], np.int64)
        self._said = [[_spoken(name) for name in kind] for kind in self._kinds]
        self._kinds_of = lru_cache(maxsize=512)(
            self._fitting
        )  # by kind: what callers type must not hold memory by row

    @cached_property
    def _keys(self) -> list[tuple[frozenset[str], frozenset[str]]]:
        return [(name_keys(kind[1]), name_keys(kind[2])) for kind in self._kinds]

    @property
    def has_prices(self) -> bool:
        """Whether any item of the day has a price."""
        return bool(np.isfinite(self._price).any())

    def values(self, field_name: str) -> list[str]:
        """What an exact field may name, sorted."""
        return list(self._names[field_name])

    def knows(self, words: str) -> bool:
        """Whether some items are what the words name. A word that stands nowhere is refused at once, without a look at any item."""
        spoken = set(_spoken(words.lower()).split())
        return spoken <= self._words and bool(self._kinds_of(words.lower()).any())

    @cached_property
    def _words(self) -> frozenset[str]:
        """Every word of a name, a kind or a phrase, in the singular."""
        phrases = (phrase.text for book in load_phrases() for phrase in book.phrases)
        texts = {*(name for said in self._said for name in said), *map(_spoken, (*group_rules(), *phrases))}
        return frozenset(word for text in texts for word in text.split())

    def named(self, words: str) -> Rows:
        """Rows that the words name, bool [N]: those of the kinds that they name."""
        fits = self._kinds_of(words)
        return np.asarray(fits[self._kind_N] if len(fits) else np.zeros(len(self._rows), np.bool_))

    def _fitting(self, words: str) -> Rows:
        """Kinds that the words name, bool [K]; the first of these that fits anything decides.

        A kind of constraint_words.yaml; departments, categories, types and brands whose name holds the words, plural or not ("non
        dairy" does not hold "dairy"); a phrase of phrases.yaml.
        """
        fits = np.zeros(len(self._kinds), np.bool_)
        for find in (self._of_group, self._of_name, self._of_phrase):
            fits = np.array(find(words), np.bool_)
            if fits.any():
                break
        return fits

    def _of_group(self, words: str) -> list[bool]:
        """Kinds that a rule of the word fits, but "non dairy"."""
        rules = _group_rules_of(_spoken(words))
        if not rules:
            return [False] * len(self._kinds)
        negated = f" non{_spoken(words)}"
        return [
            negated not in said[1] and any(rule.holds(*keys) for rule in rules)
            for keys, said in zip(self._keys, self._said, strict=True)
        ]

    def _of_name(self, words: str) -> list[bool]:
        """Kinds with a name that holds the words. A category of several things ("ice cream and sherbet") of which some types hold
        the words stands for those types alone.
        """
        wanted = _spoken(words)
        if not wanted.strip():
            return [False] * len(self._kinds)

        def holds(name: str) -> bool:
            return wanted in name and f" non{wanted}" not in name

        split = {said[1] for said in self._said if " and " in said[1] and holds(said[2])}
        return [
            any(map(holds, (said[0], said[2], said[3]))) or (holds(said[1]) and said[1] not in split)
            for said in self._said
        ]

    def _of_phrase(self, words: str) -> list[bool]:
        books = [book for book in load_phrases() if any(phrase.text == words for phrase in book.phrases)]
        return [
            any(phrase.text == words for book in books for phrase in book.answered(kind[1], kind[2]))
            for kind in self._kinds
        ]

    def rows(self, wanted: ItemFilter, history_filter: str, owned: Collection[int]) -> Rows:
        """The rows that may be returned, bool [N].

        Args:
            wanted: the request's filter.
            history_filter: of its task: none | items | texts. The stronger of it and `wanted.owned` holds; "keep" overrules it.
            owned: rows bought before.

        Raises:
            FilterError: a field names nothing in the catalog, or no price lies between the bounds.
        """
        out = np.ones(len(self._rows), np.bool_)
        _check_prices(wanted)
        for name in _ONE_OF:
            if values := getattr(wanted, name):
                out &= np.isin(self._values[name], [self._exact(name, value) for value in values])
        if wanted.only:
            out &= np.any([self._must_name(words) for words in wanted.only], axis=0)
        for words in wanted.without:
            out &= ~self._must_name(words)
        if wanted.min_price is not None:
            out &= self._price >= wanted.min_price  # NaN compares False: an unknown price never passes
        if wanted.max_price is not None:
            out &= self._price <= wanted.max_price
        if wanted.only_items is not None:
            out &= self._marked(wanted.only_items)
        out &= ~self._marked(wanted.exclude_items)
        if wanted.only_new:
            out &= self._is_new
        return out & ~self._hidden(wanted.owned, history_filter, owned)

    def _hidden(self, wish: str, history_filter: str, owned: Collection[int]) -> Rows:
        asked = {"hide_items": "items", "hide_texts": "texts"}.get(wish, "none")
        kind = "none" if wish == "keep" else max(asked, history_filter, key=_STRENGTH.index)
        mine = np.fromiter(owned, dtype=np.int64)
        out = np.zeros(len(self._rows), np.bool_)
        if kind == "items":
            out[mine] = True
        elif kind == "texts":
            out = np.isin(self._group, self._group[mine])
        return out

    def _exact(self, field_name: str, value: str) -> str:
        """The value as the catalog writes it, whatever its case."""
        known = self._known[field_name]
        if value.lower() in known:
            return known[value.lower()]
        near = difflib.get_close_matches(value.lower(), known, n=2)
        hint = f" Did you mean {' or '.join(repr(known[name]) for name in near)}?" if near else ""
        some = ", ".join([*sorted(known.values())[:3], *(["and more"] if len(known) > 3 else [])])
        raise FilterError(f"{field_name}: the catalog of the day has no {value!r}, it has {some}.{hint}")

    @cached_property
    def _known(self) -> dict[str, dict[str, str]]:
        return {name: {value.lower(): value for value in self.values(name)} for name in _ONE_OF}

    def _must_name(self, words: str) -> Rows:
        if not self.knows(words):
            raise FilterError(f"{words!r} names no department, category, type or brand of the day's catalog.")
        return self.named(words.lower())

    def _marked(self, items: Collection[str]) -> Rows:
        out = np.zeros(len(self._rows), np.bool_)
        out[[self._rows[item] for item in items if item in self._rows]] = True
        return out


def _check_prices(wanted: ItemFilter) -> None:
    low, high = wanted.min_price, wanted.max_price
    if low is not None and high is not None and low > high:
        raise FilterError(f"no price is at least {low:g} and at most {high:g}; swap or loosen the bounds.")


class ReadWords(NamedTuple):
    """What is left of the words for the model, the filter with the constraints read out of them, and a line a constraint."""

    query: str | None
    instruction: str | None
    wanted: ItemFilter
    told: tuple[str, ...]


def read_words(
    table: FilterTable, query: str | None, instruction: str | None, wanted: ItemFilter
) -> ReadWords:
    """Read the constraints out of query and instruction, on top of those that `wanted` holds already."""
    left: list[str | None] = []
    told: tuple[str, ...] = ()
    for text in (query, instruction):
        said = understand(text or "", table.knows, has_prices=table.has_prices)
        wanted, told = wanted.and_understood(said), (*told, *said.told())
        left.append(said.text or None)
    return ReadWords(left[0], left[1], wanted, told)


def _spoken(name: str) -> str:
    """Words of a name in the singular, each between blanks."""
    return f" {' '.join(_singular(word) for word in name_words(name))} "


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@lru_cache(maxsize=64)
def _group_rules_of(spoken: str) -> tuple[Rule, ...]:
    rules = {_spoken(word): rules for word, rules in group_rules().items()}
    return tuple(parse_rule(rule) for rule in rules.get(spoken, ()))
