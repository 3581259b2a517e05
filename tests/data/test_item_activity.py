"""Counts and their logs, by hand."""

import math

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.data.item_activity import (
    ACTIVITY_SCHEMA,
    aligned_counts,
    item_statistics,
    prefix_statistics,
)

ACTIVITY = pl.DataFrame(
    {
        c.ITEM_ID: ["a", "b", "d"],
        c.NUM_EVENTS_56D: [8, 4, 0],
        c.NUM_EVENTS_14D: [2, 4, 0],
        c.IS_NEW: [False, True, True],
        c.IS_TAIL: [False, False, True],
    },
    schema=ACTIVITY_SCHEMA,
)


def test_counts_follow_the_asked_order_and_unknown_items_have_none() -> None:
    counts = aligned_counts(ACTIVITY, ["b", "x", "a"])
    assert counts.dtype == np.float32
    assert counts.tolist() == [[4, 4, 1, 0], [0, 0, 0, 0], [8, 2, 0, 0]]


def test_steady_sales_have_no_trend_and_a_last_fortnight_of_everything_has_one() -> None:
    found = item_statistics(aligned_counts(ACTIVITY, ["a", "b", "d"]))
    assert found[:, 0] == pytest.approx([math.log(9), math.log(5), 0.0])
    assert found[:, 1] == pytest.approx([0.0, math.log(5 / 2), 0.0])
    assert found[:, 2:].tolist() == [[0, 0], [1, 0], [1, 1]]


def test_a_prefix_is_as_much_bought_as_its_items_together() -> None:
    found = prefix_statistics(aligned_counts(ACTIVITY, ["a", "b", "d"]), np.array([1, 1, 0]), num_codes=3)
    assert found.shape == (3, 4)
    assert found[1].tolist() == pytest.approx([math.log(13), math.log(7 / 4), math.log(5), 0.0])
    assert found[0].tolist() == found[2].tolist() == [0.0] * 4
