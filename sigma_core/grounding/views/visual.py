"""Visual view: items that look alike - mutual nearest neighbours of image vectors.

Active only where the source has image vectors (the user's own, or made by `grounding/image_vectors.py`); without any it has no
pair, and its share of a batch goes to the other views. Source: paper section on grounding (visual similarity); mutual
neighbours, which keep a plain white box from being everybody's neighbour, are our choice.
"""

from typing import Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.grounding.views.base import ViewInputs, as_pairs, sample_weighted

NAME: Final = "visual"
NEIGHBORS: Final = 8  # an item's nearest others by cosine
_BLOCK: Final = 1 << 24  # numbers of the similarity matrix made at a time; bounds memory


def pairs(inputs: ViewInputs) -> pl.DataFrame:
    """Item-item pairs, each among the other's `NEIGHBORS` nearest, weighted by cosine; pairs of one text left out."""
    items = inputs.items.sort(c.ITEM_ID)
    ids, text = items[c.ITEM_ID].to_list(), items[c.TEXT]
    where, vectors = _of_catalog(ids, inputs)
    row, col, cosine = mutual_neighbors(vectors, NEIGHBORS)
    row, col = where[row], where[col]
    found = pl.DataFrame(
        {
            c.ANCHOR_TEXT: text.gather(row),
            c.ANCHOR_ITEM_ID: items[c.ITEM_ID].gather(row),
            c.POSITIVE_ITEM_ID: items[c.ITEM_ID].gather(col),
            c.WEIGHT: cosine,
            "positive_text": text.gather(col),
        }
    )
    found = found.filter(pl.col(c.ANCHOR_TEXT) != pl.col("positive_text")).drop("positive_text")
    return as_pairs(sample_weighted(found, inputs.config.pairs_per_view, inputs.seed), NAME, is_pseudo=False)


def mutual_neighbors(vectors: np.ndarray, neighbors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows i < j of `vectors` (float [N, d], no zero rows) that are among each other's nearest, and their cosines > 0.

    int64 [pairs], int64 [pairs], float64 [pairs], in order of i, then j. Equal cosines: the smaller row is nearer.
    """
    size, keep = len(vectors), min(neighbors, len(vectors) - 1)
    if keep < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.zeros((size, keep), dtype=np.int64)
    value = np.zeros((size, keep))
    chunk = max(1, _BLOCK // size)
    for start in range(0, size, chunk):
        scores = unit[start : start + chunk] @ unit.T
        own = np.arange(len(scores))
        scores[own, start + own] = -np.inf
        near[start : start + chunk], value[start : start + chunk] = _best(scores, keep)
    one, other = np.repeat(np.arange(size), keep), near.reshape(-1)
    is_mutual = np.isin(other * size + one, one * size + other)
    kept = np.flatnonzero((one < other) & is_mutual & (value.reshape(-1) > 0))
    kept = kept[np.lexsort((other[kept], one[kept]))]
    return one[kept], other[kept], value.reshape(-1)[kept]


def _best(scores_RN: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    # Columns and scores of each row's `keep` best, the smaller column first among equals, without sorting whole rows.
    least_R = np.partition(scores_RN, -keep, axis=1)[:, -keep]
    row, col = np.nonzero(scores_RN >= least_R[:, None])  # ties with the last make it more than `keep`
    order = np.lexsort((col, -scores_RN[row, col], row))
    starts = np.searchsorted(row, np.arange(len(scores_RN)))
    order = order[np.arange(len(row)) - starts[row] < keep]
    return col[order].reshape(-1, keep), scores_RN[row, col][order].reshape(-1, keep)


def _of_catalog(ids: list[str], inputs: ViewInputs) -> tuple[np.ndarray, np.ndarray]:
    # Catalog rows that have an image vector of some length, int64 [n], and the vectors, float64 [n, d].
    if inputs.images is None:
        return np.zeros(0, np.int64), np.zeros((0, 1))
    row_of = {item: row for row, item in enumerate(inputs.images[0])}
    at = np.array([row_of.get(item, -1) for item in ids], dtype=np.int64)
    vectors = inputs.images[1][at].astype(np.float64)
    where = np.flatnonzero((at >= 0) & (np.linalg.norm(vectors, axis=1) > 0))
    return where, vectors[where]
