"""EASE, TIFU-KNN, text neighbours and groups: against the formulas written out, and by hand on the toy world."""

import numpy as np
import pytest
from scipy import sparse

from sigma_core.evaluation.collaborative_scores import (
    EaseScores,
    GroupPopularity,
    TextNeighbors,
    TifuKnnScores,
    basket_frequencies,
)
from sigma_core.evaluation.text_match import CosineMatch
from tests.evaluation.toy_evaluation import ICE_A, ICE_B, fake_encode, history, taken
from tests.toy_world import toy_catalog


def test_ease_without_the_item_matrix_is_ease_with_it() -> None:
    x = np.random.default_rng(0).poisson(0.7, (5, 9)).astype(np.float32)
    inverse = np.linalg.inv(x.T @ x + 3.0 * np.eye(9))
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0)
    found = EaseScores(sparse.csr_matrix(x), 3.0).block(np.arange(5, dtype=np.int32))
    np.testing.assert_allclose(found, np.maximum(x @ weights, 0), atol=1e-4)


def test_ease_of_nobody_is_nothing() -> None:
    history_rows = taken()
    block = EaseScores(history_rows.decayed).block(history_rows.rows_of(["nobody"]))
    assert block.tolist() == [[0, 0, 0, 0, 0]]


def test_tifu_counts_baskets_back_from_the_newest() -> None:
    rows = taken()
    found = basket_frequencies(history(), toy_catalog().frame["item_id"], rows, 2, 0.5, 0.1).toarray()
    # u1 bought ice_a and ice_b on day 1, ice_a on day 3, ice_b on day 5: groups (5, 3) and (1)
    u1 = found[rows.rows_of(["u1"])[0]]
    assert u1[ICE_B] == pytest.approx((1 / 2 + 0.1 / 1) / 2)
    assert u1[ICE_A] == pytest.approx((0.5 / 2 + 0.1 / 1) / 2)
    assert found[-1].sum() == 0


def test_tifu_mixes_the_user_with_its_neighbours_and_never_itself() -> None:
    vectors = sparse.csr_matrix(np.array([[1, 0, 0], [0.9, 0.4, 0], [0, 0, 1], [0, 0, 0]], np.float32))
    block = TifuKnnScores(vectors, neighbors=1, own=0.5).block(np.array([0, 2], np.int32))
    assert block[0].tolist() == pytest.approx([0.5 + 0.45, 0.2, 0])
    assert block[1].tolist() == pytest.approx([0.45, 0.2, 0.5])


def test_tifu_of_a_single_user_is_its_own_frequencies() -> None:
    vectors = sparse.csr_matrix(np.array([[2, 0], [0, 0]], np.float32))
    assert TifuKnnScores(vectors, own=0.5).block(np.array([0], np.int32)).tolist() == [[1, 0]]


def test_texts_near_the_history_score_high() -> None:
    names = ["premium ice", "frozen pops", "diapers", "wipes", "ice cream"]
    rows = taken()
    matrix = sparse.csr_matrix(np.array([[2, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.float32))
    block = TextNeighbors(matrix, CosineMatch(names, fake_encode)).block(np.array([0, 1], np.int32))
    near, far = np.log1p(2), np.log1p(2) * np.exp(-10)
    assert block[0].tolist() == pytest.approx([near, near, far, far, near])
    assert block[1].sum() == 0
    assert rows.counts.shape[1] == len(names)


def test_groups_speak_for_items_without_sales() -> None:
    category = np.array([0, 0, 0, 1, 1])
    rows = taken()
    who = rows.rows_of(["u1", "u4"])
    assert GroupPopularity(category, np.array([3, 2, 0, 3, 3])).block(who).tolist() == [[5, 5, 5, 6, 6]] * 2
