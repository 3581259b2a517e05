from datetime import date

import numpy as np
import polars as pl
import pytest

from sigma_assets.features import catalog_features, launch_vectors, own_id_embeddings, refit_features
from sigma_core import columns as c
from sigma_core.config import TokenizationConfig
from sigma_core.grounding.embed import embed_items
from sigma_core.tokenization.codebooks import fit_codebooks
from tests.no_lexical import MeaningAlone
from tests.toy_world import TOY_DAY, toy_catalog, toy_events


class CountingEncoder(MeaningAlone):
    """Texts to unit vectors by their letters; remembers what it was asked."""

    text_dim = 8

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: list[str], progress: object = None) -> np.ndarray:
        self.asked += texts
        rows = np.array(
            [np.bincount([ord(letter) % 8 for letter in text], minlength=8) for text in texts], float
        )
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def digest(self) -> str:
        return "letters"


def test_own_vectors_get_a_mean_norm_of_one_and_a_popularity_column() -> None:
    history = pl.DataFrame({c.ITEM_ID: ["a", "a", "a"]})
    value = own_id_embeddings((["a", "b"], np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)), history)
    assert value.factors.tolist() == [[1.5, 0.0], [0.0, 0.5]]  # norms 3 and 1: their mean is 2
    assert value.vectors[:, 2].tolist() == [1.0, -1.0]  # log 4 and log 1, standardized


def test_only_texts_nobody_encoded_before_cost_anything() -> None:
    earlier, today = toy_catalog(date(2024, 3, 4)), toy_catalog(TOY_DAY)
    encoder = CountingEncoder()
    before = embed_items(earlier.frame[c.ITEM_ID].to_list(), earlier.frame[c.TEXT].to_list(), encoder)[0]
    books = fit_codebooks(before, TokenizationConfig(codebook_size=4, num_levels=2), seed=0, threads=1)
    ids = own_id_embeddings((["dia_a"], np.ones((1, 2), np.float32)), toy_events())
    encoder.asked.clear()
    features = catalog_features(today, ids, books, encoder, [before])
    new = today.frame.filter(~today.frame[c.TEXT].is_in(earlier.frame[c.TEXT].implode()))
    assert sorted(set(encoder.asked)) == sorted(set(new[c.TEXT]) | set(new[c.LAUNCH_TEXT]))
    assert features.item_ids == today.frame[c.ITEM_ID].to_list()
    assert features.has_id.tolist() == [item == "dia_a" for item in features.item_ids]


def test_the_refits_items_keep_their_stored_codes() -> None:
    catalog, encoder = toy_catalog(), CountingEncoder()
    vectors = embed_items(catalog.frame[c.ITEM_ID].to_list(), catalog.frame[c.TEXT].to_list(), encoder)[0]
    books = fit_codebooks(vectors, TokenizationConfig(codebook_size=4, num_levels=2), seed=0, threads=1)
    ids = own_id_embeddings((["dia_a"], np.ones((1, 2), np.float32)), toy_events())
    features = refit_features(catalog, vectors, ids, books)
    assert np.array_equal(features.prefix, books.codes[:, :1])
    assert launch_vectors(catalog, books, encoder, []).item_ids == []


@pytest.mark.parametrize("day", [date(2024, 3, 4), TOY_DAY])
def test_a_bulk_built_catalog_is_the_one_built_from_its_own_past(day: date) -> None:
    from sigma_core.data.catalog import CatalogBuilder
    from tests.toy_world import TOY_CONFIG, TOY_START, toy_source

    past = toy_events().filter(pl.col(c.EVENT_DATE) <= day)
    alone = CatalogBuilder(past, toy_source().products(), TOY_CONFIG, TOY_START).day(day)
    assert alone.digest() == toy_catalog(day).digest()
