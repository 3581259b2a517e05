"""Claims about semantic IDs: refit items keep theirs, later ones are coded from their launch text, tokens round-trip."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.tokenization.semantic_ids import SemanticIdMap, build_semantic_id_map, format_sid

BOOKS = np.array([[[1, 0], [0, 1]], [[0.1, 0], [0, 0.1]]], dtype=np.float32)


class Catalog:
    """Stands in for ItemCatalog: only the ids are read."""

    def __init__(self, *item_ids: str) -> None:
        self.frame = pl.DataFrame({c.ITEM_ID: item_ids}, schema={c.ITEM_ID: pl.String})


def books() -> Codebooks:
    codes = np.array([[1, 0], [0, 1]])  # item a stands against its nearest centroid, as balancing may decide
    return Codebooks(BOOKS, ["a", "b"], codes, prefix_length=1, beam=2, encoder_digest="e")


def launched(**vectors: list[float]) -> ItemEmbeddings:
    ids = sorted(vectors)
    return ItemEmbeddings(ids, ids, np.array([vectors[i] for i in ids], np.float32).reshape(len(ids), 2), "e")


def test_refit_items_keep_their_codes_and_later_ones_are_coded() -> None:
    got = build_semantic_id_map(Catalog("b", "new", "a"), books(), launched(a=[1, 0], b=[0, 1], new=[1.1, 0]))
    assert got.frame[c.ITEM_ID].to_list() == ["a", "b", "new"]
    assert got.frame[c.CODES].to_list() == [[1, 0], [0, 1], [0, 0]]
    assert got.frame[c.PREFIX].to_list() == [[1], [0], [0]]
    assert got.frame[c.CODE_SOURCE].to_list() == ["refit", "refit", "launch"]
    assert got.prefixes().tolist() == [[1], [0], [0]]
    assert got.codes().shape == (3, 2)
    assert got.summary()["by_code_source"] == {"launch": 1, "refit": 2}


@given(st.permutations(["a", "b", "x", "y", "z"]))
def test_the_map_is_the_same_for_any_row_order(order: list[str]) -> None:
    vectors = launched(x=[1, 0.2], y=[0.1, 1], z=[0.6, 0.5])
    want = build_semantic_id_map(Catalog("a", "b", "x", "y", "z"), books(), vectors).digest()
    assert build_semantic_id_map(Catalog(*order), books(), vectors).digest() == want


def test_an_item_keeps_its_id_when_others_leave() -> None:
    vectors = launched(x=[1, 0.2], y=[0.1, 1])
    both = build_semantic_id_map(Catalog("a", "x", "y"), books(), vectors).frame
    alone = build_semantic_id_map(Catalog("y"), books(), vectors).frame
    assert both.filter(pl.col(c.ITEM_ID) == "y").equals(alone)


def test_a_later_item_without_a_vector_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1 of 1 items are not in ItemEmbeddings \(first: \['ghost'\]\)"):
        build_semantic_id_map(Catalog("a", "ghost"), books(), launched(x=[1, 0]))


def test_vectors_of_another_encoder_are_refused() -> None:
    other = ItemEmbeddings(["x"], ["x"], np.ones((1, 2), np.float32), "other")
    with pytest.raises(ValueError, match="two different spaces"):
        build_semantic_id_map(Catalog("a"), books(), other)


def test_an_empty_catalog_gives_an_empty_map() -> None:
    got = build_semantic_id_map(Catalog(), books(), launched())
    assert got.frame.height == 0
    assert got.frame.schema == pl.Schema(SemanticIdMap.schema)


def test_codes_are_written_as_tokens_with_the_level_as_letter() -> None:
    assert format_sid([12, 7]) == "<a_12><b_7>"
    assert format_sid([]) == ""
