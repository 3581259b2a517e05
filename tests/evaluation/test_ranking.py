"""Top-n with ties by column, checked against a plain sort."""

import numpy as np
import polars as pl
import pytest

from sigma_core.evaluation.ranking import tie_order, top_columns
from sigma_core.evaluation.requests import EvalRequest, check_lists

NOTHING = np.empty(0, np.int32)


def test_equal_scores_stand_in_column_order():
    scores = np.array([[1, 3, 3, 0, 3]], np.float32)
    assert top_columns(scores, 4).tolist() == [[1, 2, 4, 0]]


def test_negative_scores_are_never_listed_and_zeros_only_on_wish():
    scores = np.array([[0, -1, 2, -0.0]], np.float32)
    assert top_columns(scores, 4).tolist() == [[2, 0, 3, -1]]
    assert top_columns(scores, 4, positive_only=True).tolist() == [[2, -1, -1, -1]]


def test_it_agrees_with_a_stable_sort_when_ties_cross_the_border():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 200)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    assert np.array_equal(top_columns(scores, 20), expected)


def test_close_scores_are_told_apart():
    scores = np.array([[1.0, np.nextafter(np.float32(1), np.float32(2)), 1e-30]], np.float32)
    assert top_columns(scores, 3).tolist() == [[1, 0, 2]]


def test_nothing_to_rank_gives_padding():
    assert top_columns(np.empty((2, 0), np.float32), 3).tolist() == [[-1] * 3] * 2


def test_ties_are_broken_by_popularity_then_by_id_as_a_number():
    order = tie_order(np.array([1, 1, 5, 1]), pl.Series(["10", "11", "7", "9"]))
    assert order.tolist() == [2, 3, 0, 1]


def request(exclude=NOTHING):
    return EvalRequest("u", "discover", "", "", {}, exclude, NOTHING)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (np.zeros((2, 3), np.int32), "needed integers"),
        (np.zeros((1, 3), np.float32), "needed integers"),
        (np.array([[5]], np.int32), "rows 0..4"),
        (np.array([[-2]], np.int32), "rows 0..4"),
        (np.array([[1, 2, 1]], np.int32), "twice"),
        (np.array([[0, 3]], np.int32), "excludes for user u"),
    ],
)
def test_a_ranker_that_breaks_its_contract_is_named(lists, message):
    with pytest.raises(ValueError, match=f"'cheat'.*{message}|{message}"):
        check_lists(lists, [request(np.array([3], np.int32))], 5, "cheat")


def test_padding_is_no_item_of_the_catalog():
    check_lists(np.array([[1, -1, -1]], np.int32), [request(np.array([4], np.int32))], 5, "honest")
