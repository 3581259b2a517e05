"""What a view of relevance pairs is given and what it returns.

A view is one function `pairs(inputs) -> frame` in a module of its own; adding one adds a module and
a row in `relevance_pairs.VIEWS`. Holds the shared frame shape and the weighted sampling, no view. Source: paper section
on grounding (views); sampling is our choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import GroundingConfig

PAIR_SCHEMA: Final[dict[str, Any]] = {
    c.VIEW: pl.String,
    c.ANCHOR_TEXT: pl.String,
    c.ANCHOR_ITEM_ID: pl.String,
    c.POSITIVE_ITEM_ID: pl.String,
    c.WEIGHT: pl.Float64,
    c.IS_PSEUDO: pl.Boolean,
}
PAIR_ORDER: Final = (c.VIEW, c.ANCHOR_TEXT, c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID)


@dataclass(frozen=True)
class ViewInputs:
    """All that a view may look at.

    Attributes:
        events: accepted events before the refit, none later.
        items: frame of the catalog of the day before the refit, one row per item.
        themes: holiday name -> theme words.
        phrases: a shopper's phrase -> ids of the items that answer it; the phrases of the train split only.
        config: limits and windows.
        seed: of every choice.
        annotations: an LLM's phrase -> ids of items that answer it; empty where the annotator is off.
        images: item ids and image vectors float [N, d], where the source has any.
        complements: what is used -> words for what is used with it.
        held_out: phrases that evaluation asks with: no anchor, even where one is a category's name as well.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    themes: Mapping[str, Sequence[str]]
    phrases: Mapping[str, Sequence[str]]
    config: GroundingConfig
    seed: int
    annotations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    images: tuple[Sequence[str], np.ndarray] | None = None
    complements: Mapping[str, Sequence[str]] = field(default_factory=dict)
    held_out: frozenset[str] = frozenset()


def as_pairs(rows: pl.DataFrame, view: str, *, is_pseudo: bool) -> pl.DataFrame:
    """`rows` (ANCHOR_TEXT, POSITIVE_ITEM_ID, WEIGHT, perhaps ANCHOR_ITEM_ID) in the shape of all pairs, sorted."""
    if c.ANCHOR_ITEM_ID not in rows.columns:
        rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias(c.ANCHOR_ITEM_ID))
    return (
        rows.with_columns(pl.lit(view).alias(c.VIEW), pl.lit(is_pseudo).alias(c.IS_PSEUDO))
        .select(pl.col(name).cast(kind) for name, kind in PAIR_SCHEMA.items())
        .sort(PAIR_ORDER)
    )


def sample_weighted(rows: pl.DataFrame, limit: int, seed: int) -> pl.DataFrame:
    """At most `limit` of the rows, drawn without replacement with chances by WEIGHT, kept in their order.

    Deterministic for the same rows in the same order (keys u^(1/w), Efraimidis and Spirakis 2006).
    """
    if rows.height <= limit:
        return rows
    uniform = np.random.default_rng(seed).random(rows.height)
    key = np.log(np.maximum(uniform, 1e-300)) / np.maximum(rows[c.WEIGHT].to_numpy(), 1e-12)
    keep = np.zeros(rows.height, dtype=bool)
    keep[np.argsort(-key, kind="stable")[:limit]] = True
    return rows.filter(pl.Series(keep))


def cap_per(rows: pl.DataFrame, column: str, limit: int, seed: int) -> pl.DataFrame:
    """At most `limit` rows for each value of `column`: a weighted draw inside each value."""
    uniform = np.random.default_rng(seed).random(rows.height)
    key = np.log(np.maximum(uniform, 1e-300)) / np.maximum(rows[c.WEIGHT].to_numpy(), 1e-12)
    rank = pl.col("_key").rank("ordinal", descending=True).over(column)
    return rows.with_columns(pl.Series("_key", key)).filter(rank <= limit).drop("_key")
