"""Claims about codebooks: what they encode, keep, and how they are numbered."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.config import TokenizationConfig
from sigma_core.grounding.embed import ItemEmbeddings, text_hash
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.tokenization.codebooks import Codebooks, fit_codebooks

CONFIG = TokenizationConfig(num_levels=3, codebook_size=8, prefix_length=1, beam=3, max_group_ratio=2.0)


def unit_rows(num: int, width: int = 6, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embeddings(vectors: np.ndarray) -> ItemEmbeddings:
    ids = [f"i{row:04d}" for row in range(len(vectors))]
    return ItemEmbeddings(ids, [text_hash(item) for item in ids], vectors, "encoder")


def test_two_clusters_of_the_toy_world_get_two_prefixes() -> None:
    vectors = np.array([[1, 0], [0.99, 0.14], [0.98, -0.17], [0, 1], [0.14, 0.99], [-0.17, 0.98]], np.float32)
    config = TokenizationConfig(num_levels=2, codebook_size=2, max_group_ratio=1.5)
    books = fit_codebooks(embeddings(vectors), config, seed=1, threads=1)
    assert books.codes[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.allclose(books.codebooks[0, 0], vectors[:3].mean(axis=0), atol=1e-6)
    assert books.encode(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32))[:, 0].tolist() == [0, 1]


def test_the_largest_group_keeps_its_bound_where_free_clustering_would_not() -> None:
    crowd = unit_rows(120, seed=1) * 0.05 + np.eye(1, 6, dtype=np.float32)
    books = fit_codebooks(
        embeddings(np.concatenate([crowd, unit_rows(40, seed=2)])), CONFIG, seed=3, threads=1
    )
    assert np.bincount(books.codes[:, 0]).max() <= 2.0 * 160 / 8
    assert books.health["largest_group_ratio"] <= 2.0


def test_equal_vectors_share_all_their_codes() -> None:
    vectors = np.repeat(unit_rows(30), 3, axis=0)
    codes = fit_codebooks(embeddings(vectors), CONFIG, seed=3, threads=1).codes
    assert (codes[0::3] == codes[1::3]).all()
    assert (codes[0::3] == codes[2::3]).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_a_row_is_coded_the_same_in_any_company(seed: int) -> None:
    books = fit_codebooks(embeddings(unit_rows(60)), CONFIG, seed=3, threads=1)
    rng = np.random.default_rng(seed)
    new = unit_rows(70, seed=seed)
    order = rng.permutation(70)
    assert (books.encode(new)[order] == books.encode(new[order])).all()
    assert (books.encode(new[7:8]) == books.encode(new)[7:8]).all()


def test_later_items_take_the_nearest_centroid_and_never_a_dead_code() -> None:
    books = fit_codebooks(embeddings(unit_rows(5)), CONFIG, seed=3, threads=1)
    assert books.health["dead_codes"][0] == 3
    new = unit_rows(50, seed=9)
    codes = books.encode(new)
    used = books.codebooks[0][books.used(0)]
    nearest = np.square(new[:, None, :] - used[None]).sum(axis=2).argmin(axis=1)
    assert (codes[:, 0] == np.flatnonzero(books.used(0))[nearest]).all()
    assert books.used(1)[codes[:, 1]].all()


def test_a_wider_beam_never_reconstructs_worse_on_the_whole() -> None:
    fitted = fit_codebooks(embeddings(unit_rows(200)), CONFIG, seed=3, threads=1)
    new, errors = unit_rows(100, seed=5), {}
    for beam in (1, 8):
        books = Codebooks(
            fitted.codebooks,
            fitted.item_ids,
            fitted.codes,
            prefix_length=1,
            beam=beam,
            encoder_digest="encoder",
        )
        errors[beam] = float(np.square(new - books.reconstruct(books.encode(new))).sum())
    assert errors[8] <= errors[1]


def test_codes_depend_on_the_seed_and_not_on_threads() -> None:
    vectors = unit_rows(300)
    one = fit_codebooks(embeddings(vectors), CONFIG, seed=3, threads=1)
    two = fit_codebooks(embeddings(vectors), CONFIG, seed=3, threads=2)
    assert one.digest() == two.digest()
    assert one.digest() != fit_codebooks(embeddings(vectors), CONFIG, seed=4, threads=1).digest()


def test_collaborative_weight_moves_groups_but_centroids_stay_means_of_text() -> None:
    vectors = unit_rows(40)
    ids = embeddings(vectors).item_ids
    teacher = ItemIdEmbeddings(ids[:30], np.repeat(np.eye(2, 3, dtype=np.float32) + 0.1, 15, axis=0))
    config = CONFIG.model_copy(update={"codebook_size": 2, "collaborative_weight": 50.0})
    books = fit_codebooks(embeddings(vectors), config, seed=3, threads=1, id_embeddings=teacher)
    first = books.codes[:, 0]
    assert len(set(first[:15].tolist())) == 1  # same v_ID, same group
    assert len(set(first[15:30].tolist())) == 1
    assert first[0] != first[15]
    for code in (0, 1):
        assert np.allclose(books.codebooks[0, code], vectors[first == code].mean(axis=0), atol=1e-6)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    books = fit_codebooks(embeddings(unit_rows(50)), CONFIG, seed=3, threads=1, categories=["a", None] * 25)
    books.save(tmp_path)
    again = Codebooks.load(tmp_path)
    assert again.digest() == books.digest()
    assert again.summary() == books.summary()
    assert again.summary()["prefix_purity"] >= 0.5


def test_a_vector_of_another_space_is_refused() -> None:
    books = fit_codebooks(embeddings(unit_rows(20)), CONFIG, seed=3, threads=1)
    with pytest.raises(ValueError, match=r"need \[rows, 6\]"):
        books.encode(np.zeros((2, 7), np.float32))
    with pytest.raises(ValueError, match="at least one item"):
        fit_codebooks(embeddings(np.zeros((0, 6), np.float32)), CONFIG, seed=3, threads=1)
