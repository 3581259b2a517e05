"""Segments, reliability and calibration error on lists small enough to count by hand."""

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.benchmarks.diagnosis import (
    calibration_error,
    outcomes,
    recall_by_segment,
    reliability,
    segments_of,
)
from sigma_core.generation.recommender import Recommendation


def listed(*pairs: tuple[int, float]) -> list[Recommendation]:
    return [Recommendation(row, score, (0,), 1.0) for row, score in pairs]


def test_segments_follow_the_volume_and_cold_comes_first():
    """Volume 60 + 25 + 10 + 5: the first item alone makes half of it."""
    catalog = pl.DataFrame(
        {
            c.NUM_EVENTS_56D: [10, 60, 25, 5, 0],
            c.IS_NEW: [False, False, False, False, True],
            c.IS_TAIL: [False, False, False, True, True],
        }
    )
    assert segments_of(catalog) == ["torso", "head", "torso", "tail", "cold"]


def test_recall_counts_targets_and_hits_of_each_segment():
    segment = ["head", "head", "tail", "cold"]
    rows = recall_by_segment([listed((0, 0.5), (2, 0.1)), listed((1, 0.4))], [{0, 3}, {0, 1}], segment)
    found = {row["segment"]: (row["targets"], row["hits"], row["recall@20"]) for row in rows}
    assert found == {"head": (3, 2, 2 / 3), "torso": (0, 0, None), "tail": (0, 0, None), "cold": (1, 0, 0.0)}
    assert sum(row["share_of_lists"] for row in rows) == pytest.approx(1.0)


def test_a_bought_item_of_two_targets_is_observed_half():
    predicted, observed = outcomes([listed((0, 0.5), (2, 0.1))], [{0, 3}])
    assert predicted.tolist() == [0.5, 0.1]
    assert observed.tolist() == [0.5, 0.0]
    curve = reliability(predicted, observed, 2)
    assert curve[1] == {"predicted": 0.5, "observed": 0.5, "count": 1}
    assert calibration_error(curve) == pytest.approx(0.05)  # (|.1 - 0| + 0) / 2
    assert reliability(np.zeros(0), np.zeros(0), 10) == []
