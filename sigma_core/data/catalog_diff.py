"""What changed between two catalogs, item by item, and how a person reads it.

Compares published catalogs only; who asked for the change is not its business. Our choice.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog

NUM_EXAMPLES: Final = 3
KINDS: Final = {
    "new": "first listed or first sold on the day",
    "relisted": "known before, back in the catalog",
    "renamed": "another title for people",
    "changed": "the same title, other words for the encoder",
    "delisted": "in the catalog before, gone from the product master",
    "dropped": "still in the product master, too few buyers lately",
}
_WORDS: Final = (c.TITLE, c.TEXT, c.ITEM_TYPE, c.CATEGORY, c.DEPARTMENT, c.BRAND, c.MAKER, c.SIZE)


@dataclass(frozen=True)
class CatalogDiff:
    """Items by kind of change (a key of `KINDS`), ids ascending; an example is `id: what was -> what is`."""

    items: dict[str, list[str]]
    examples: dict[str, list[str]]
    num_same: int

    def counts(self) -> dict[str, int]:
        """Items of each kind, and those that stayed as they were."""
        return {kind: len(ids) for kind, ids in self.items.items()} | {"unchanged": self.num_same}

    def is_empty(self) -> bool:
        """True when both catalogs hold the same items in the same words."""
        return not any(self.items.values())

    def table(self) -> str:
        """A Markdown table: kind, number of items, meaning, examples."""
        rows = ["| change | items | meaning | examples |", "|---|---:|---|---|"]
        for kind, meaning in KINDS.items():
            shown = "; ".join(self.examples[kind]).replace("|", "/")
            rows.append(f"| {kind} | {len(self.items[kind]):,} | {meaning} | {shown} |")
        return "\n".join([*rows, f"| unchanged | {self.num_same:,} | | |"])


def catalog_diff(
    before: ItemCatalog, after: ItemCatalog, day: date, listed: set[str] | None = None
) -> CatalogDiff:
    """Every item of either catalog under exactly one kind, or counted as unchanged.

    Args:
        before: the former catalog.
        after: the one of `day`; an item that comes in and was launched earlier comes back, it is not new.
        day: partition of `after`.
        listed: ids of the product master behind `after`; None: an item that left was dropped, not delisted.
    """
    old = before.frame.select(c.ITEM_ID, *_WORDS)
    both = after.frame.select(c.ITEM_ID, *_WORDS).join(
        old, on=c.ITEM_ID, how="full", suffix="_before", coalesce=True
    )
    rows = both.with_columns(_kind(both, before, after, day, listed).alias("_kind")).sort(c.ITEM_ID)
    items: dict[str, list[str]] = {}
    examples: dict[str, list[str]] = {}
    for kind in KINDS:
        mine = rows.filter(pl.col("_kind") == kind)
        items[kind] = mine[c.ITEM_ID].to_list()
        examples[kind] = [_example(kind, row) for row in mine.head(NUM_EXAMPLES).iter_rows(named=True)]
    return CatalogDiff(items, examples, rows.height - sum(map(len, items.values())))


def _kind(
    both: pl.DataFrame, before: ItemCatalog, after: ItemCatalog, day: date, listed: set[str] | None
) -> pl.Series:
    """The kind of each row; null for an item that stayed as it was."""
    was, now = before.frame[c.ITEM_ID].implode(), after.frame[c.ITEM_ID].implode()
    item = pl.col(c.ITEM_ID)
    here = pl.lit(True) if listed is None else item.is_in(pl.Series(sorted(listed)).implode())
    launched_today = after.frame.filter(pl.col(c.LAUNCHED_ON) == day)[c.ITEM_ID]
    is_new = item.is_in(launched_today.implode())
    other = pl.any_horizontal(pl.col(w).ne_missing(pl.col(f"{w}_before")) for w in _WORDS)
    kinds = (
        pl.when(~item.is_in(now))
        .then(pl.when(here).then(pl.lit("dropped")).otherwise(pl.lit("delisted")))
        .when(~item.is_in(was))
        .then(pl.when(is_new).then(pl.lit("new")).otherwise(pl.lit("relisted")))
        .when(pl.col(c.TITLE).ne_missing(pl.col(f"{c.TITLE}_before")))
        .then(pl.lit("renamed"))
        .when(other)
        .then(pl.lit("changed"))
    )
    return both.select(kinds.alias("_kind"))["_kind"]


def _example(kind: str, row: dict[str, Any]) -> str:
    item = row[c.ITEM_ID]
    if kind in {"delisted", "dropped"}:
        return f"{item}: {row[f'{c.TITLE}_before']}"
    if kind in {"new", "relisted"}:
        return f"{item}: {row[c.TITLE]}"
    name = c.TITLE if kind == "renamed" else c.TEXT
    return f"{item}: {row[f'{name}_before']} -> {row[name]}"
