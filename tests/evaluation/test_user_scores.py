"""User scores of the toy world, by hand."""

from datetime import timedelta

import numpy as np
import pytest
from scipy import sparse

from sigma_core import columns as c
from sigma_core.evaluation.user_scores import (
    AMPLIFICATION,
    CountScores,
    ItemNeighbors,
    PurchaseHistory,
    TypeScores,
    nearest_by_cosine,
)
from tests.evaluation.toy_evaluation import DIA_A, DIA_B, DIA_C, ICE_A, ICE_B, history, taken
from tests.toy_world import TOY_DAY, toy_catalog, toy_events


def test_counts_are_event_lines_of_catalog_items():
    assert CountScores(taken().counts).block(taken().rows_of(["u1", "u4"])).tolist() == [
        [0, 0, 0, 2, 2],
        [2, 1, 0, 0, 0],
    ]
    assert taken().items_of("u2").tolist() == [ICE_A, ICE_B]  # its ice_c has left the catalog


def test_a_line_a_half_life_old_counts_half():
    half = PurchaseHistory(history(), toy_catalog().frame[c.ITEM_ID], TOY_DAY, 2.0)
    u1 = CountScores(half.decayed).block(half.rows_of(["u1"]))[0]
    assert u1[ICE_A] == pytest.approx(0.25 + 0.5)  # days 1 and 3, seen from day 5
    assert u1[ICE_B] == pytest.approx(0.25 + 1)


def test_an_unknown_user_has_an_empty_row():
    assert CountScores(taken().counts).block(taken().rows_of(["nobody"])).sum() == 0
    assert taken().items_of("nobody").tolist() == []


def test_a_history_that_knows_the_future_is_refused():
    with pytest.raises(ValueError, match="events of later days"):
        PurchaseHistory(toy_events(), toy_catalog().frame[c.ITEM_ID], TOY_DAY - timedelta(days=1), 120.0)


def test_an_items_type_speaks_for_it():
    item_type = np.array([0, 0, 1, 2, 2])  # diapers, diapers, wipes, ice cream, ice cream
    sold = np.array([3, 2, 1, 3, 3])
    block = TypeScores(taken().counts, item_type, sold).block(taken().rows_of(["u4"]))
    assert block[0].tolist() == pytest.approx([3 * 3 / 6, 3 * 2 / 6, 0, 0, 0])


def test_cosine_neighbours_are_those_of_the_same_buyers():
    counts = sparse.csr_matrix(np.array([[1, 1, 0], [1, 0, 2]], np.float32))
    cosine = nearest_by_cosine(counts, 3).toarray()
    assert cosine == pytest.approx(np.array([[1, 0.5**0.5, 0.5**0.5], [0.5**0.5, 1, 0], [0.5**0.5, 0, 1]]))


def test_only_the_nearest_are_kept_and_ties_of_the_last_stay():
    counts = sparse.csr_matrix(np.array([[1, 1, 0], [1, 0, 2]], np.float32))
    nearest = nearest_by_cosine(counts, 2).toarray()
    assert (nearest > 0).tolist() == [[True, True, True], [True, True, False], [True, False, True]]
    assert (nearest_by_cosine(counts, 1).toarray() > 0).tolist() == np.eye(3, dtype=bool).tolist()


def test_neighbours_recommend_what_like_minded_users_took():
    block = ItemNeighbors(taken().decayed).block(taken().rows_of(["u1", "u4"]))
    assert (block[0] > 0).tolist() == [False, False, False, True, True]
    assert block[1, DIA_A] > block[1, DIA_B] > block[1, DIA_C] > 0  # wipes only through u3
    assert AMPLIFICATION > 1


def test_an_empty_history_is_no_error():
    none = PurchaseHistory(history().clear(), toy_catalog().frame[c.ITEM_ID], TOY_DAY, 120.0)
    assert ItemNeighbors(none.decayed).block(none.rows_of(["u1"])).tolist() == [[0, 0, 0, 0, 0]]
