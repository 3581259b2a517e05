"""Knowledge view: what the world knows without looking at behaviour - holiday themes, what goes together, the shop's taxonomy.

A holiday (alone, or with one of its theme words) is paired with the items whose words match the theme; an item with one that
complements it (complements.yaml: salsa for tortilla chips), with a sibling of its category, and, where the annotator is on, with
the phrases an LLM finds for its type. Evaluation labels come from outcomes, never from these, so nothing leaks.
Source: paper section on grounding (world knowledge); the sources of it are our choice.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.grounding.views.base import ViewInputs, as_pairs, cap_per, sample_weighted

NAME: Final = "knowledge"
ANNOTATED_SHARE: Final = 1 / 3  # of the pairs, at most; none without an annotator
THEME_SHARE: Final = 0.5  # of the other pairs
COMPLEMENT_SHARE: Final = 0.15  # of them, at most; the rest are taxonomy
MIN_PER_HOLIDAY: Final = 40


def pairs(inputs: ViewInputs) -> pl.DataFrame:
    """Holiday-item pairs, half where there are enough; complements and category siblings; phrases of an LLM beside them.

    Pairs of an LLM's phrase are marked IS_PSEUDO.
    """
    items = inputs.items.sort(c.ITEM_ID)
    annotated = _annotated(inputs, items)
    limit = inputs.config.pairs_per_view - annotated.height
    themed = _themed(inputs.themes, items)
    per_holiday = max(
        MIN_PER_HOLIDAY, int(2 * THEME_SHARE * limit) // max(themed[c.ANCHOR_TEXT].n_unique(), 1)
    )
    themed = cap_per(themed, c.ANCHOR_TEXT, per_holiday, inputs.seed)
    themed = sample_weighted(themed, max(int(limit * THEME_SHARE), 1), inputs.seed)
    complements = _complements(items, inputs.complements, inputs.seed)
    complements = sample_weighted(complements, max(int(limit * COMPLEMENT_SHARE), 1), inputs.seed)
    left = limit - themed.height - complements.height
    siblings = sample_weighted(_siblings(items, inputs.seed), left, inputs.seed)
    themed = themed.with_columns(pl.lit(None, dtype=pl.String).alias(c.ANCHOR_ITEM_ID))
    parts = [themed, *(part.select(themed.columns) for part in (complements, siblings))]
    known = as_pairs(pl.concat(parts), NAME, is_pseudo=False)
    both = pl.concat([known, as_pairs(annotated, NAME, is_pseudo=True)])
    # a phrase may be a holiday's theme as well: the pair counts once, as the theme's
    return both.unique((c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID), keep="first", maintain_order=True)


def answers(items: pl.DataFrame, themes: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """ANCHOR_TEXT and POSITIVE_ITEM_ID of all that holidays and their theme words stand for, whether drawn as a pair or not."""
    return _themed(themes, items).select(c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID)


def theme_pattern(word: str) -> str:
    """Regular expression that finds the theme word as a whole word, singular or plural, in lower-case text."""
    stem = re.escape(word.strip().lower())
    return rf"\b{stem}(?:s|es)?\b"


_WORDS: Final = pl.concat_str(
    [c.TEXT, c.ITEM_TYPE, c.CATEGORY], separator=" | ", ignore_nulls=True
).str.to_lowercase()
_BY_POPULARITY: Final = (1.0 + pl.col(c.NUM_EVENTS_56D).log1p()).alias(c.WEIGHT)


def _complements(items: pl.DataFrame, complements: Mapping[str, Sequence[str]], seed: int) -> pl.DataFrame:
    # Every item of what is used meets one item of each thing used with it, drawn by popularity.
    rng = np.random.default_rng(seed)
    told = items.select(c.ITEM_ID, c.TEXT, _WORDS.alias("words"), _BY_POPULARITY)

    def of(word: str) -> pl.DataFrame:
        return told.filter(pl.col("words").str.contains(theme_pattern(word)))

    found = []
    for used, others in complements.items():
        mine = of(used)
        for theirs in map(of, others):
            if mine.height and theirs.height:
                weight = theirs[c.WEIGHT].to_numpy()
                drawn = theirs[rng.choice(theirs.height, mine.height, p=weight / weight.sum())]
                found.append(
                    mine.select(
                        pl.col(c.TEXT).alias(c.ANCHOR_TEXT),
                        pl.col(c.ITEM_ID).alias(c.ANCHOR_ITEM_ID),
                        drawn[c.ITEM_ID].alias(c.POSITIVE_ITEM_ID),
                        drawn[c.TEXT].alias("positive_text"),
                        pl.lit(1.0).alias(c.WEIGHT),
                    )
                )
    if not found:
        return _siblings(items.clear(), seed)
    pairs = pl.concat(found).filter(pl.col(c.ANCHOR_TEXT) != pl.col("positive_text")).drop("positive_text")
    key = (c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID)
    return pairs.unique(key, keep="first", maintain_order=True).sort(key)


def _themed(themes: Mapping[str, Sequence[str]], items: pl.DataFrame) -> pl.DataFrame:
    texts = items.select(pl.col(c.ITEM_ID).alias(c.POSITIVE_ITEM_ID), _WORDS.alias("words"), _BY_POPULARITY)
    found = [texts.clear().with_columns(pl.lit("").alias(c.ANCHOR_TEXT))]
    for holiday in sorted(themes):
        for word in sorted(set(themes[holiday])):
            match = texts.filter(pl.col("words").str.contains(theme_pattern(word)))
            found += [
                match.with_columns(pl.lit(text).alias(c.ANCHOR_TEXT))
                for text in (holiday, f"{holiday} {word}")
            ]
    columns = (c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID, c.WEIGHT)
    themed = pl.concat([part.select(columns) for part in found])
    return themed.unique(columns[:2], keep="first", maintain_order=True).sort(columns[:2])


def _annotated(inputs: ViewInputs, items: pl.DataFrame) -> pl.DataFrame:
    pairs_of = pl.DataFrame(
        [(phrase, item) for phrase in sorted(inputs.annotations) for item in inputs.annotations[phrase]],
        schema={c.ANCHOR_TEXT: pl.String, c.POSITIVE_ITEM_ID: pl.String},
        orient="row",
    )
    found = pairs_of.join(
        items.select(pl.col(c.ITEM_ID).alias(c.POSITIVE_ITEM_ID), _BY_POPULARITY), on=c.POSITIVE_ITEM_ID
    )
    most = int(inputs.config.pairs_per_view * ANNOTATED_SHARE)
    per_phrase = max(MIN_PER_HOLIDAY, 2 * most // max(len(inputs.annotations), 1))
    found = cap_per(found.sort(c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID), c.ANCHOR_TEXT, per_phrase, inputs.seed)
    return sample_weighted(found, most, inputs.seed)


def _siblings(items: pl.DataFrame, seed: int) -> pl.DataFrame:
    # A random ring through every category: each item is paired with the next one of another text.
    placed = items.filter(pl.col(c.CATEGORY).is_not_null())
    order = pl.Series("_order", np.random.default_rng(seed).permutation(placed.height))
    shuffled = placed.with_columns(order).sort(c.CATEGORY, "_order")

    def following(column: str) -> pl.Expr:
        return pl.col(column).shift(-1).fill_null(pl.col(column).first()).over(c.CATEGORY)

    return (
        shuffled.select(
            pl.col(c.TEXT).alias(c.ANCHOR_TEXT),
            pl.col(c.ITEM_ID).alias(c.ANCHOR_ITEM_ID),
            following(c.ITEM_ID).alias(c.POSITIVE_ITEM_ID),
            following(c.TEXT).alias("positive_text"),
            pl.lit(1.0).alias(c.WEIGHT),
        )
        .filter(pl.col(c.ANCHOR_TEXT) != pl.col("positive_text"))
        .drop("positive_text")
        .sort(c.ANCHOR_ITEM_ID)
    )
