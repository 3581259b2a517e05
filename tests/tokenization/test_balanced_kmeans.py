"""Claims about capacity-limited clustering and canonical numbering."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigma_core.tokenization import balanced_kmeans as bk


def test_the_farther_unit_gives_way_when_a_cluster_is_full() -> None:
    # Three units want cluster 0, it holds two: the one at distance 3 goes to its second choice.
    distances = np.array([[1.0, 9.0], [3.0, 5.0], [2.0, 9.0]])
    assert bk.assign_with_capacity(distances, np.ones(3), capacity=2.0).tolist() == [0, 1, 0]


def test_a_unit_heavier_than_the_capacity_stands_alone() -> None:
    distances = np.array([[1.0, 2.0], [1.5, 2.0], [1.6, 2.0]])
    assert bk.assign_with_capacity(distances, np.array([3.0, 1.0, 1.0]), capacity=3.0).tolist() == [0, 1, 1]


def test_of_equally_near_clusters_the_first_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """All want cluster 1; two must go on, first to 0, which is as far as 2; then, 0 being full, to 2."""
    monkeypatch.setattr(bk, "_BLOCK", 1)
    distances = np.array([[5.0, 1.0, 5.0], [5.0, 2.0, 5.0], [4.0, 3.0, 4.0]])
    assert bk.assign_with_capacity(distances, np.ones(3), capacity=1.0).tolist() == [1, 2, 0]
    points = np.array([[0.0], [1.0], [2.0]], np.float32)
    assert bk.nearest(points, points[[2, 0, 0]]).tolist() == [1, 0, 0]  # the middle one is as near to both


def test_too_little_room_is_an_error() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        bk.assign_with_capacity(np.ones((5, 2)), np.ones(5), capacity=2.0)


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 6))
def test_no_cluster_exceeds_the_capacity_and_no_swap_is_open(seed: int, units: int, clusters: int) -> None:
    distances = np.random.default_rng(seed).random((units, clusters))
    capacity = float(np.ceil(units / clusters))
    labels = bk.assign_with_capacity(distances, np.ones(units), capacity)
    counts = np.bincount(labels, minlength=clusters)
    assert counts.max() <= capacity
    for unit in range(units):
        for better in np.flatnonzero(distances[unit] < distances[unit, labels[unit]]):
            assert counts[better] == capacity
            assert (distances[labels == better, better] <= distances[unit, better]).all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.permutations(range(6)))
def test_canonical_numbers_do_not_depend_on_what_the_clustering_called_them(
    labels: list[int], names: list[int]
) -> None:
    first = np.array(labels)
    second = np.array(names)[first]
    assert (bk.canonical_order(first, 6)[first] == bk.canonical_order(second, 6)[second]).all()


def test_canonical_numbers_follow_first_appearance() -> None:
    labels = np.array([4, 4, 1, 0, 1])
    assert bk.canonical_order(labels, 5)[labels].tolist() == [0, 0, 1, 2, 1]
    assert sorted(bk.canonical_order(labels, 5).tolist()) == [0, 1, 2, 3, 4]


def test_fewer_points_than_clusters_are_their_own_centroids() -> None:
    points = np.eye(3, dtype=np.float32)
    assert (bk.kmeans(points, np.ones(3), 8, iterations=3, seed=0) == points).all()
