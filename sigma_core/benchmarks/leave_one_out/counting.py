"""The models that only count: popularity, item-kNN and EASE. Each is fitted on training sequences and scores histories.

Sources: item-kNN by cosine of item columns (Sarwar et al. 2001), EASE (Steck 2019); how the history's order enters item-kNN is
our choice.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from sigma_core.benchmarks.leave_one_out.data import IntArray
from sigma_core.benchmarks.leave_one_out.ranks import Score, ScoreBlock


def user_item(sequences: Sequence[IntArray], num_items: int) -> csr_matrix:
    """float32 [users, N]: 1 where the user has the item."""
    users = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
    held = csr_matrix(
        (np.ones(len(users), np.float32), (users, np.concatenate(sequences))),
        shape=(len(sequences), num_items),
    )
    held.data[:] = 1.0
    return held


def popularity(sequences: Sequence[IntArray], num_items: int) -> Score:
    """Everyone gets the items of most training users first."""
    counts = np.asarray(user_item(sequences, num_items).sum(axis=0), np.float32).ravel()

    def score(histories: Sequence[IntArray]) -> ScoreBlock:
        return np.broadcast_to(counts, (len(histories), num_items)).copy()

    return score


def item_knn(sequences: Sequence[IntArray], num_items: int, *, neighbors: int) -> csr_matrix:
    """float32 [N, N]: cosine of each item with others, the `neighbors` most similar ones kept, zero diagonal."""
    held = user_item(sequences, num_items)
    norms = np.sqrt(np.maximum(np.asarray(held.sum(axis=0)).ravel(), 1.0))
    similar = (held.T @ held).tocsr()
    similar.setdiag(0)
    similar.eliminate_zeros()
    similar.data /= np.repeat(norms, np.diff(similar.indptr)) * norms[similar.indices]
    for row in range(num_items):
        part = similar.data[similar.indptr[row] : similar.indptr[row + 1]]
        if len(part) > neighbors:
            part[part < np.partition(part, -neighbors)[-neighbors]] = 0.0
    return similar


def ease(sequences: Sequence[IntArray], num_items: int, *, l2: float) -> np.ndarray:
    """float32 [N, N]: EASE, the linear item-to-item model with zero diagonal in closed form, O(N^3) time and N^2 memory.

    B = I - P / diag(P) with P = (X'X + l2 I)^-1.
    """
    from scipy.linalg import lapack

    held = user_item(sequences, num_items)
    gram = np.asfortranarray((held.T @ held).toarray(), dtype=np.float32)
    gram[np.diag_indices(num_items)] += l2
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    if failed == 0:
        inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ValueError(f"EASE cannot be solved with l2={l2} (LAPACK says {failed}); raise l2.")
    weights = np.tril(inverse) + np.tril(inverse, -1).T
    weights /= -np.diag(weights)[None, :].copy()
    weights[np.diag_indices(num_items)] = 0.0
    return np.asarray(weights, np.float32)


def linear(weights_NN: np.ndarray | csr_matrix, decay: float) -> Score:
    """Sum over the history of the items' rows, an item k places back weighing decay ** k (1: the published form of EASE)."""

    def score(histories: Sequence[IntArray]) -> ScoreBlock:
        found = _weighted(histories, weights_NN.shape[0], decay) @ weights_NN
        return np.asarray(found if isinstance(found, np.ndarray) else found.toarray(), np.float32)

    return score


def _weighted(histories: Sequence[IntArray], num_items: int, decay: float) -> csr_matrix:
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    weights = np.concatenate([decay ** np.arange(len(h) - 1, -1, -1, dtype=np.float32) for h in histories])
    return csr_matrix((weights, (users, np.concatenate(histories))), shape=(len(histories), num_items))
