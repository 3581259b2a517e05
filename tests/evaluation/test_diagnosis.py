"""Segments, reliability and calibration error on lists small enough to count by hand."""

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.evaluation.diagnosis import (
    SEGMENTS,
    calibration_error,
    outcomes,
    recall_by_segment,
    reliability,
    segments_of,
)
from sigma_core.evaluation.metrics import target_sets

LISTS = np.array([[0, 2, -1], [1, -1, -1]], np.int32)
TARGETS = target_sets([np.array([0, 3], np.int32), np.array([0, 1], np.int32)])


def test_segments_follow_the_volume_and_cold_comes_first():
    """Volume 60 + 25 + 10 + 5: the first item alone makes half of it."""
    catalog = pl.DataFrame(
        {
            c.NUM_EVENTS_56D: [10, 60, 25, 5, 0],
            c.IS_NEW: [False, False, False, False, True],
            c.IS_TAIL: [False, False, False, True, True],
        }
    )
    assert [SEGMENTS[code] for code in segments_of(catalog)] == ["torso", "head", "torso", "tail", "cold"]


def test_recall_counts_targets_and_hits_of_each_segment():
    segment = np.array([SEGMENTS.index(name) for name in ("head", "head", "tail", "cold")])
    rows = recall_by_segment(LISTS, TARGETS, segment)
    found = {row["segment"]: (row["targets"], row["hits"], row["recall@20"]) for row in rows}
    assert found == {"head": (3, 2, 2 / 3), "torso": (0, 0, None), "tail": (0, 0, None), "cold": (1, 0, 0.0)}
    assert [row["share_of_lists"] for row in rows] == [2 / 3, 0.0, 1 / 3, 0.0]


def test_a_bought_item_of_two_targets_is_observed_half():
    scores = np.array([[0.5, 0.1, 0.0], [0.4, 0.0, 0.0]])
    predicted, observed = outcomes(LISTS, scores, TARGETS)
    assert predicted.tolist() == [0.5, 0.1, 0.4]
    assert observed.tolist() == [0.5, 0.0, 0.5]
    curve = reliability(predicted, observed, 3)
    assert curve[2] == {"predicted": 0.5, "observed": 0.5, "count": 1}
    assert calibration_error(curve) == pytest.approx(0.2 / 3)  # (|.1 - 0| + |.4 - .5| + 0) / 3
    assert reliability(np.zeros(0), np.zeros(0), 10) == []
