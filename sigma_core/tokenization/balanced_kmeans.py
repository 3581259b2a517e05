"""K-means whose groups may not grow beyond a capacity, and a numbering of its clusters that reruns agree on.

Level 0 of the codebooks uses it: step 2 of generation scores every item of a prefix group, so one huge group would set the
price of every request. It knows vectors and weights only. Our choice; the paper is silent on balance and numbering.
"""

# Shape legend: U units (distinct vectors), D width, K clusters.

from typing import Final, NamedTuple

import numpy as np

_BLOCK: Final = 262_144  # units whose distances to all centroids are held at a time


class Clusters(NamedTuple):
    """Clusters of U units; `labels` int32 [U] in 0..K-1, `centroids` float32 [K, D]."""

    labels: np.ndarray
    centroids: np.ndarray


def kmeans(
    units_UD: np.ndarray, weights_U: np.ndarray, num_clusters: int, *, iterations: int, seed: int
) -> np.ndarray:
    """float32 [min(K, U), D]: centroids of faiss k-means, the same for the same seed.

    With no more units than clusters every unit is its own centroid.
    """
    import faiss

    if len(units_UD) <= num_clusters:
        return units_UD.astype(np.float32)
    model = faiss.Kmeans(
        units_UD.shape[1],
        num_clusters,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,  # fewer points than faiss likes is a small catalog, not an error worth a line on stderr
        max_points_per_centroid=len(units_UD) // num_clusters + 1,
    )
    model.train(np.ascontiguousarray(units_UD, np.float32), weights=weights_U.astype(np.float32))
    return np.array(model.centroids, dtype=np.float32)


def squared_distances(units_UD: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """float32 [U, K] squared Euclidean distances (tiny negatives from rounding are possible)."""
    norms_U1 = np.einsum("ud,ud->u", units_UD, units_UD)[:, None]
    norms_K = np.einsum("kd,kd->k", centroids_KD, centroids_KD)
    out: np.ndarray = (
        units_UD @ centroids_KD.T
    )  # the only array of this size: at a million units it has gigabytes
    out *= -2.0
    out += norms_U1
    out += norms_K
    return out


def nearest(units_UD: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """int64 [U]: each unit's nearest centroid, of equal ones the first."""
    blocks = range(0, max(len(units_UD), 1), _BLOCK)
    parts = [squared_distances(units_UD[at : at + _BLOCK], centroids_KD).argmin(axis=1) for at in blocks]
    return np.concatenate(parts)


def assign_with_capacity(distances_UK: np.ndarray, weights_U: np.ndarray, capacity: float) -> np.ndarray:
    """int32 [U]: each unit's nearest cluster that still wants it; no cluster carries more than `capacity`.

    Deferred acceptance: units propose in order of distance, a full cluster keeps its nearest ones. The outcome is stable:
    no unit is nearer to a cluster that holds a farther unit it could take the place of. A unit heavier than the capacity
    fills a cluster alone.

    Raises:
        ValueError: the clusters cannot hold all units.
    """
    num_units, num_clusters = distances_UK.shape
    if weights_U.sum() > capacity * num_clusters:
        raise ValueError(
            f"{weights_U.sum():.0f} items do not fit into {num_clusters} groups of {capacity:.1f}; raise max_group_ratio."
        )
    asked_U = np.ones(num_units, dtype=np.int64)
    labels_U = distances_UK.argmin(axis=1).astype(np.int32)
    while True:
        rejected = _rejected(distances_UK, labels_U, weights_U, capacity)
        rejected = rejected[asked_U[rejected] < num_clusters]  # nowhere left to go: stays, above capacity
        if len(rejected) == 0:
            return labels_U
        asked_U[rejected] += 1
        for rows in np.array_split(rejected, len(rejected) // _BLOCK + 1):
            labels_U[rows] = _next_choice(distances_UK[rows], labels_U[rows])


def _next_choice(distances_RK: np.ndarray, labels_R: np.ndarray) -> np.ndarray:
    # The cluster after the present one in order of distance, then number; a sorted list of all of them is never kept.
    now = np.take_along_axis(distances_RK, labels_R[:, None], axis=1)
    is_later = np.arange(distances_RK.shape[1]) > labels_R[:, None]
    is_left = (distances_RK > now) | ((distances_RK == now) & is_later)
    choice: np.ndarray = np.where(is_left, distances_RK, np.inf).argmin(axis=1)
    return choice


def _rejected(
    distances_UK: np.ndarray, labels_U: np.ndarray, weights_U: np.ndarray, capacity: float
) -> np.ndarray:
    distance_U = distances_UK[np.arange(len(labels_U)), labels_U]
    order = np.lexsort((np.arange(len(labels_U)), distance_U, labels_U))
    sorted_labels, sorted_weights = labels_U[order], weights_U[order]
    starts = np.r_[True, sorted_labels[1:] != sorted_labels[:-1]]
    running = np.cumsum(sorted_weights)
    before_group = np.maximum.accumulate(np.where(starts, running - sorted_weights, 0))
    over = (running - before_group > capacity) & ~starts
    rejected: np.ndarray = order[over]
    return rejected


def means(units_UD: np.ndarray, weights_U: np.ndarray, labels_U: np.ndarray, num_clusters: int) -> np.ndarray:
    """float32 [K, D]: weighted mean of each cluster's units; zero rows for empty clusters."""
    sums_KD = np.zeros((num_clusters, units_UD.shape[1]))
    np.add.at(sums_KD, labels_U, units_UD * weights_U[:, None])
    total_K = np.bincount(labels_U, weights=weights_U, minlength=num_clusters)
    return (sums_KD / np.maximum(total_K, 1e-12)[:, None]).astype(np.float32)


def balanced_kmeans(
    units_UD: np.ndarray,
    weights_U: np.ndarray,
    num_clusters: int,
    *,
    max_ratio: float,
    iterations: int,
    seed: int,
) -> Clusters:
    """Clusters none of which weighs more than `max_ratio` times the mean (but for one indivisible unit).

    Free k-means first, then rounds of capacity-limited assignment and new means.
    """
    centroids_KD = kmeans(units_UD, weights_U, num_clusters, iterations=iterations, seed=seed)
    count = len(centroids_KD)
    capacity = max(max_ratio * float(weights_U.sum()) / count, float(weights_U.max()))
    for _ in range(5):  # measured: labels hardly move after three rounds
        labels_U = assign_with_capacity(squared_distances(units_UD, centroids_KD), weights_U, capacity)
        centroids_KD = means(units_UD, weights_U, labels_U, count)
    return Clusters(labels_U, centroids_KD)


def canonical_order(labels: np.ndarray, num_codes: int) -> np.ndarray:
    """int32 [K]: new number of each old label. Labels are numbered by their first row; unused ones follow in old order.

    Rows must come in a canonical order (ascending item id): then two runs that find the same groups give them the same
    numbers, whatever the clustering called them.
    """
    used, first_row = np.unique(labels, return_index=True)
    unused = np.setdiff1d(np.arange(num_codes), used)
    sequence = np.concatenate([used[np.argsort(first_row, kind="stable")], unused])
    number = np.empty(num_codes, dtype=np.int32)
    number[sequence] = np.arange(num_codes, dtype=np.int32)
    return number
