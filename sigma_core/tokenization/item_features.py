"""The frozen features of a catalog's items, aligned row by row: what the fusion turns into unique item vectors.

Holds the value object and the one function that lines the artifacts up. It has no parameters and trains nothing. Source:
paper section on hybrid item tokenization (v_text, v_ID, v_img); presence flags are ours (paper.md, decision 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sigma_core import columns as c
from sigma_core.grounding.cross_fitting import FoldedIds
from sigma_core.grounding.embed import ItemEmbeddings, positions
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.tokenization.semantic_ids import SemanticIdMap


@dataclass(frozen=True)
class ItemFeatures:
    """Features of N items in the order of `item_ids` (ascending).

    Attributes:
        item_ids: N ids.
        text: float32 [N, text_dim], unit rows.
        id: float32 [N, id_dim + 1]; zero rows where `has_id` is False.
        image: float32 [N, image_dim] or None; zero rows where `has_image` is False.
        has_id: bool [N].
        has_image: bool [N], all False without images.
        prefix: int32 [N, prefix length].
        lexical: float32 [N, W], hashed words; W may be 0.
        texts: the items' words, where a training may want to say them.
        folded: v_ID without each fold of users: what a training reads in the place of `id` where that may know the answer.
    """

    item_ids: list[str]
    text: np.ndarray
    id: np.ndarray
    image: np.ndarray | None
    has_id: np.ndarray
    has_image: np.ndarray
    prefix: np.ndarray
    lexical: np.ndarray
    texts: list[str] | None = None
    folded: FoldedIds | None = None

    def __len__(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def match(self) -> np.ndarray:
        """float32 [N, T + W]: what a request's words are compared with (`GroundedEncoder.match_vectors`)."""
        return np.concatenate((self.text, self.lexical), axis=1)

    def rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """int64 positions of `item_ids`; `ValueError` names those that are not here."""
        return positions(self.item_ids, item_ids, "ItemFeatures")


def assemble(
    item_ids: Sequence[str],
    text: ItemEmbeddings,
    ids: ItemIdEmbeddings,
    semantic_ids: SemanticIdMap,
    images: tuple[Sequence[str], np.ndarray] | None = None,
) -> ItemFeatures:
    """Features of `item_ids`, sorted. v_ID and v_img may be missing (zero row, flag False); text and prefix may not.

    Raises:
        ValueError: an item comes twice, or has no text vector or no semantic ID.
    """
    order = sorted(set(item_ids))
    if len(order) != len(item_ids):
        raise ValueError(
            f"{len(item_ids)} item ids arrived, {len(order)} of them distinct; needed distinct ones."
        )
    known = semantic_ids.frame[c.ITEM_ID].to_list()
    whole = order == text.item_ids
    text_row = slice(None) if whole else text.rows(order)
    id_row = _rows_of(order, ids.item_ids)
    id_rows, has_id = _optional_rows(id_row, ids.vectors)
    image_rows, has_image = None, np.zeros(len(order), dtype=bool)
    if images is not None:
        image_rows, has_image = _optional_rows(_rows_of(order, images[0]), images[1])
    return ItemFeatures(
        item_ids=order,
        text=text.vectors[text_row],
        lexical=text.lexical[text_row],
        id=id_rows,
        image=image_rows,
        has_id=has_id,
        has_image=has_image,
        prefix=semantic_ids.prefixes()[positions(known, order, "semantic_id_map")],
        folded=None if ids.out_of_fold is None else FoldedIds(ids.out_of_fold, id_row),
    )


def prefix_match(features: ItemFeatures, centroids_KT: np.ndarray) -> np.ndarray:
    """float32 (K, T + W): each first code's centroid, and the mean of its items' hashed words (zeros without items)."""
    code = features.prefix[:, 0].astype(np.int64)
    words = np.zeros((len(centroids_KT), features.lexical.shape[1]), dtype=np.float32)
    np.add.at(words, code, features.lexical)
    size = np.bincount(code, minlength=len(centroids_KT)).clip(1)
    return np.concatenate((centroids_KT, words / size[:, None].astype(np.float32)), axis=1)


def _rows_of(order: Sequence[str], known_ids: Sequence[str]) -> np.ndarray:
    row_of = {item: row for row, item in enumerate(known_ids)}
    return np.array([row_of.get(item, -1) for item in order], dtype=np.int64)


def _optional_rows(row_N: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    has = row_N >= 0
    out = np.zeros((len(row_N), vectors.shape[1]), dtype=np.float32)
    out[has] = vectors[row_N[has]]
    return out, has
