"""Claims about aligned features: rows match ids, absence is a flag and a zero row."""

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.tokenization.item_features import assemble
from sigma_core.tokenization.semantic_ids import SemanticIdMap

TEXT = ItemEmbeddings(["a", "b", "z"], ["ha", "hb", "hz"], np.array([[1, 0], [0, 1], [0.6, 0.8]]), "e")
IDS = ItemIdEmbeddings(["b", "q"], np.array([[1, 2, 3], [4, 5, 6]]))
SIDS = SemanticIdMap(
    pl.DataFrame(
        {
            c.ITEM_ID: ["a", "b"],
            c.CODES: [[3, 1], [0, 2]],
            c.PREFIX: [[3], [0]],
            c.CODE_SOURCE: ["refit", "launch"],
        },
        schema=SemanticIdMap.schema,
    )
)


def test_rows_are_aligned_and_absence_is_flagged() -> None:
    got = assemble(["b", "a"], TEXT, IDS, SIDS, images=(["a"], np.array([[7.0]])))
    assert got.item_ids == ["a", "b"]
    assert got.text.tolist() == [[1, 0], [0, 1]]
    assert got.id.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert got.has_id.tolist() == [False, True]
    assert got.image is not None
    assert got.image.tolist() == [[7], [0]]
    assert got.has_image.tolist() == [True, False]
    assert got.prefix.tolist() == [[3], [0]]
    assert got.rows(["b", "a", "b"]).tolist() == [1, 0, 1]


def test_without_images_nothing_has_one() -> None:
    got = assemble(["a"], TEXT, IDS, SIDS)
    assert got.image is None
    assert not got.has_image.any()
    assert len(got) == 1


def test_an_item_without_text_vector_or_semantic_id_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in semantic_id_map"):
        assemble(["a", "z"], TEXT, IDS, SIDS)
    with pytest.raises(ValueError, match="not in ItemEmbeddings"):
        assemble(["a", "ghost"], TEXT, IDS, SIDS)
    with pytest.raises(ValueError, match="distinct"):
        assemble(["a", "a"], TEXT, IDS, SIDS)
