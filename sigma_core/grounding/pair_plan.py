"""From relevance pairs to what one training of the encoder uses: held-out pairs, a bounded pool of texts, indices.

The pool is bounded because every text of it is run once through the frozen layers before the first step. Pure polars and
numpy; no model. Our choice; the paper trains on 150M pairs and needs no pool.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import GroundingConfig

_TEXT: Final = "positive_text"


@dataclass(frozen=True)
class ViewPairs:
    """Pairs of one view as positions: anchor and positive text in the pool, rows of v_ID (-1 where there is none)."""

    anchor: np.ndarray
    positive: np.ndarray
    anchor_id: np.ndarray
    positive_id: np.ndarray

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.anchor)


@dataclass(frozen=True)
class PairPlan:
    """What a training sees.

    Attributes:
        texts: the pool, distinct.
        item_texts: bool, the pool's texts that belong to catalog items (what retrieval chooses from).
        train, held_out: pairs by view; both ends in the pool.
        known: sorted keys anchor * len(texts) + positive of all pairs and of answers that were not drawn, in both orders.
        num_pairs: pairs that came in.
    """

    texts: list[str]
    item_texts: np.ndarray
    train: dict[str, ViewPairs]
    held_out: dict[str, ViewPairs]
    known: np.ndarray
    num_pairs: int

    def is_known(self, anchor: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """Bool, broadcast over both: True for the same text and for pairs that the plan knows."""
        key = anchor * np.int64(len(self.texts)) + positive
        at = np.minimum(np.searchsorted(self.known, key), max(len(self.known) - 1, 0))
        known: np.ndarray = (anchor == positive) | (self.known[at] == key if len(self.known) else False)
        return known


def plan_pairs(
    pairs: pl.DataFrame,
    items: pl.DataFrame,
    id_rows: Mapping[str, int],
    config: GroundingConfig,
    seed: int,
    answers: pl.DataFrame | None = None,
) -> PairPlan:
    """The plan for `pairs` whose positives are in `items` (a catalog's frame); `id_rows` gives v_ID rows by item id.

    Held out, by hash: whole queries and holidays (no pair of a held-out query is trained on), and pairs of item texts in
    both directions. The pool takes pairs in a random order, views by their shares, until `max_texts` texts are in; pairs
    that come later enter where both their texts are there already. `answers` (ANCHOR_TEXT, POSITIVE_ITEM_ID) are true ones
    that may not have been drawn as pairs: known too, so that none is a negative.

    Raises:
        ValueError: no pair has a positive in the catalog.
    """
    rows = pairs.join(
        items.select(c.ITEM_ID, pl.col(c.TEXT).alias(_TEXT)), left_on=c.POSITIVE_ITEM_ID, right_on=c.ITEM_ID
    )
    rows = rows.filter(pl.col(c.ANCHOR_TEXT) != pl.col(_TEXT))
    if rows.height == 0:
        raise ValueError(
            f"none of the {pairs.height} relevance pairs has a positive in the catalog of {items.height} items; build the "
            "pairs from the catalog of the same refit."
        )
    rows = _shuffled(rows, config, seed)
    index = _pool(rows, config.max_texts)
    rows = rows.filter(pl.col(c.ANCHOR_TEXT).is_in(list(index)) & pl.col(_TEXT).is_in(list(index)))
    ends = rows.select(c.ANCHOR_TEXT, c.ANCHOR_ITEM_ID, _TEXT).iter_rows()
    held = np.array([_is_held_out(anchor, item, text, config.holdout_share) for anchor, item, text in ends])
    anchor = np.array([index[text] for text in rows[c.ANCHOR_TEXT]], dtype=np.int64)
    positive = np.array([index[text] for text in rows[_TEXT]], dtype=np.int64)
    anchor_id = np.array([id_rows.get(item, -1) for item in rows[c.ANCHOR_ITEM_ID]], dtype=np.int64)
    positive_id = np.array([id_rows.get(item, -1) for item in rows[c.POSITIVE_ITEM_ID]], dtype=np.int64)
    view = rows[c.VIEW].to_numpy()

    def chosen(name: str, of_held: bool) -> ViewPairs:
        at = np.flatnonzero((view == name) & (held == of_held))
        return ViewPairs(anchor[at], positive[at], anchor_id[at], positive_id[at])

    names = sorted(set(view.tolist()))
    texts = list(index)
    catalog_texts = set(items[c.TEXT].to_list())
    known = [(anchor, positive), *([] if answers is None else [_places(answers, items, index)])]
    keys = np.concatenate([key for a, b in known for key in (a * len(texts) + b, b * len(texts) + a)])
    return PairPlan(
        texts=texts,
        item_texts=np.array([text in catalog_texts for text in texts]),
        train={name: chosen(name, False) for name in names},
        held_out={name: chosen(name, True) for name in names},
        known=np.unique(keys),
        num_pairs=pairs.height,
    )


def _places(
    answers: pl.DataFrame, items: pl.DataFrame, index: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the pool of anchors and positives of the answers that have both there."""
    places = pl.DataFrame(
        {"text": list(index), "place": range(len(index))}, schema={"text": pl.String, "place": pl.Int64}
    )
    found = (
        answers.join(items.select(c.ITEM_ID, c.TEXT), left_on=c.POSITIVE_ITEM_ID, right_on=c.ITEM_ID)
        .join(places, left_on=c.ANCHOR_TEXT, right_on="text")
        .join(places, left_on=c.TEXT, right_on="text", suffix="_positive")
    )
    return found["place"].to_numpy(), found["place_positive"].to_numpy()


def _shuffled(rows: pl.DataFrame, config: GroundingConfig, seed: int) -> pl.DataFrame:
    # Rank inside the view over the view's share: reading in this order meets the views in their proportions.
    order = np.random.default_rng(seed).permutation(rows.height)
    share = pl.col(c.VIEW).replace_strict(config.view_weights, default=1.0, return_dtype=pl.Float64)
    return (
        rows.with_columns(pl.Series("_order", order))
        .with_columns((pl.col("_order").rank("ordinal").over(c.VIEW) / share.clip(1e-6)).alias("_turn"))
        .sort("_turn", "_order")
        .drop("_turn", "_order")
    )


def _pool(rows: pl.DataFrame, max_texts: int) -> dict[str, int]:
    index: dict[str, int] = {}
    for pair in rows.select(c.ANCHOR_TEXT, _TEXT).iter_rows():
        missing = [text for text in pair if text not in index]
        if len(index) + len(missing) > max_texts:
            break
        for text in missing:
            index[text] = len(index)
    return index


def _is_held_out(anchor_text: str, anchor_item: str | None, positive_text: str, share: float) -> bool:
    parts = [anchor_text] if anchor_item is None else sorted([anchor_text, positive_text])
    digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=8, person=b"holdout").digest()
    return int.from_bytes(digest, "little") < share * 2**64
