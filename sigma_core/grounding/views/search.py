"""Search view: what a shopper types, and an item that answers it.

Real queries where the source has them; otherwise pseudo-queries made from the phrase file's train split and from the
catalog's own type and category words, marked IS_PSEUDO. Source: paper section on grounding (query-item); pseudo-queries
are our choice, because public retail data has no queries.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from sigma_core import columns as c
from sigma_core.grounding.views.base import ViewInputs, as_pairs, cap_per, sample_weighted

NAME: Final = "search"
PHRASE_SHARE: Final = (
    0.5  # of pseudo-query pairs; the rest are names of types and categories, which the text mostly holds
)
MIN_PER_QUERY: Final = 8


def pairs(inputs: ViewInputs) -> pl.DataFrame:
    """Query-item pairs. A real query weighs by how often it led to the item, a pseudo-query by the item's popularity."""
    limit = inputs.config.pairs_per_view
    real = _real(inputs)
    if real.height:
        return as_pairs(_limited(real, limit, inputs.seed), NAME, is_pseudo=False)
    items = inputs.items.select(
        pl.col(c.ITEM_ID).alias(c.POSITIVE_ITEM_ID),
        (1.0 + pl.col(c.NUM_EVENTS_56D).log1p()).alias(c.WEIGHT),
        *(pl.col(column).str.to_lowercase() for column in (c.ITEM_TYPE, c.CATEGORY)),
    )
    phrases = _limited(_of_phrases(inputs.phrases, items), max(int(limit * PHRASE_SHARE), 1), inputs.seed)
    names = _of_names(items).filter(~pl.col(c.ANCHOR_TEXT).is_in(sorted(inputs.held_out)))
    names = _limited(names, limit - phrases.height, inputs.seed)
    both = pl.concat([phrases, names]).unique(
        [c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID], keep="first", maintain_order=True
    )
    return as_pairs(both, NAME, is_pseudo=True)


def answers(items: pl.DataFrame, phrases: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """ANCHOR_TEXT and POSITIVE_ITEM_ID of all that phrases, types and categories stand for, whether drawn as a pair or not."""
    told = items.select(
        pl.col(c.ITEM_ID).alias(c.POSITIVE_ITEM_ID),
        *(pl.col(column).str.to_lowercase() for column in (c.ITEM_TYPE, c.CATEGORY)),
    )
    columns = (c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID)
    return pl.concat(
        [part.select(columns) for part in (_of_phrases(phrases, told), _of_names(told))]
    ).unique()


def _limited(rows: pl.DataFrame, limit: int, seed: int) -> pl.DataFrame:
    # At most `limit` pairs, no query with more than twice its even share.
    rows = rows.select(c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID, c.WEIGHT).sort(c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID)
    per_query = max(MIN_PER_QUERY, 2 * limit // max(rows[c.ANCHOR_TEXT].n_unique(), 1))
    return sample_weighted(cap_per(rows, c.ANCHOR_TEXT, per_query, seed), limit, seed)


def _real(inputs: ViewInputs) -> pl.DataFrame:
    query = pl.col(c.QUERY_TEXT).str.strip_chars().str.to_lowercase()
    known = inputs.items[c.ITEM_ID].implode()
    return (
        inputs.events.filter(
            query.str.len_chars() > 0, ~query.is_in(sorted(inputs.held_out)), pl.col(c.ITEM_ID).is_in(known)
        )
        .group_by(query.alias(c.ANCHOR_TEXT), pl.col(c.ITEM_ID).alias(c.POSITIVE_ITEM_ID))
        .agg(pl.len().cast(pl.Float64).log1p().alias(c.WEIGHT))
    )


def _of_phrases(phrases: Mapping[str, Sequence[str]], items: pl.DataFrame) -> pl.DataFrame:
    answers = pl.DataFrame(
        [(phrase, item) for phrase in sorted(phrases) for item in phrases[phrase]],
        schema={c.ANCHOR_TEXT: pl.String, c.POSITIVE_ITEM_ID: pl.String},
        orient="row",
    )
    return answers.join(items, on=c.POSITIVE_ITEM_ID)


def _of_names(items: pl.DataFrame) -> pl.DataFrame:
    names = [items.with_columns(pl.col(column).alias(c.ANCHOR_TEXT)) for column in (c.ITEM_TYPE, c.CATEGORY)]
    rows = pl.concat(names).filter(pl.col(c.ANCHOR_TEXT).str.len_chars() > 0)
    return rows.unique([c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID], keep="first", maintain_order=True)
