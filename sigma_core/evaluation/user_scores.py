"""Scores of catalog items for users, from history alone: counts, decayed counts, item-to-item neighbours.

Task information (pools, trends, words) is added by `task_pools.py`; nothing here reads a request. Our choice of
opponents: tasks.md names them. Scores are never negative, 0 means "nothing known".
"""

from datetime import date
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from sigma_core import columns as c
from sigma_core.evaluation.requests import IntArray

# Shape legend: H users of the history, N items of the catalog, B users of a block, K neighbours.
ScoreBlock = npt.NDArray[np.float32]

NUM_NEIGHBORS: Final = 200
AMPLIFICATION: Final = 2.5  # 1 and 3 tried on 2017-04-08 and 2017-11-15: 1 loses repeats, 3 loses new items
MIN_COUNT: Final = 0.5
_ITEMS_AT_ONCE: Final = 512  # rows of the similarity matrix made at a time; bounds memory


class UserScores(Protocol):
    """Dense scores for a few users at a time."""

    def block(self, users: IntArray) -> ScoreBlock:
        """float32 [B, N], >= 0, of the users with these rows of the history."""


class PurchaseHistory:
    """Event lines of users with items of one catalog, up to its day.

    Args:
        events: purchases with EVENT_DATE <= `as_of`; items outside the catalog are left out.
        item_ids: of the catalog, sorted.
        as_of: last day the history may hold.
        half_life_days: of the decayed counts.

    Attributes:
        counts, decayed: CSR float32 [H + 1, N]; the last row is that of a user without history.

    Raises:
        ValueError: an event after `as_of`.
    """

    def __init__(self, events: pl.DataFrame, item_ids: pl.Series, as_of: date, half_life_days: float) -> None:
        if late := int((events[c.EVENT_DATE] > as_of).sum()):
            raise ValueError(
                f"the history of {as_of} holds {late} events of later days; a baseline would see its own targets. "
                "Pass history_until(events, as_of)."
            )
        age = (pl.lit(as_of) - pl.col(c.EVENT_DATE)).dt.total_days()
        catalog = pl.DataFrame({c.ITEM_ID: item_ids}).with_row_index(_ITEM)
        pairs = (
            events.lazy()
            .join(catalog.lazy(), on=c.ITEM_ID)
            .group_by(c.USER_ID, _ITEM)
            .agg(pl.len().alias(_COUNT), (0.5 ** (age.sort() / half_life_days)).sum().alias(_DECAYED))
            .sort(c.USER_ID, _ITEM)
            .collect()
        )
        users = pairs[c.USER_ID].unique().sort()
        self._row = {user: row for row, user in enumerate(users)}
        rows = pairs[c.USER_ID].rank("dense").to_numpy().astype(np.int64) - 1
        where = (rows, pairs[_ITEM].to_numpy().astype(np.int64))
        shape = (len(users) + 1, len(item_ids))
        self.counts = sparse.csr_matrix((pairs[_COUNT].to_numpy().astype(np.float32), where), shape)
        self.decayed = sparse.csr_matrix((pairs[_DECAYED].to_numpy().astype(np.float32), where), shape)

    def rows_of(self, user_ids: list[str]) -> IntArray:
        """History row of each user; the empty last row for an unknown one."""
        return np.array([self._row.get(user, len(self._row)) for user in user_ids], np.int32)

    def owned_keys(self) -> npt.NDArray[np.int64]:
        """history row * N + catalog row of every pair, sorted."""
        rows = np.repeat(np.arange(self.counts.shape[0], dtype=np.int64), np.diff(self.counts.indptr))
        return np.sort(rows * self.counts.shape[1] + self.counts.indices)

    def items_of(self, user_id: str) -> IntArray:
        """Catalog rows the user ever took, sorted."""
        row = self._row.get(user_id, len(self._row))
        inside = slice(self.counts.indptr[row], self.counts.indptr[row + 1])
        return np.asarray(self.counts.indices[inside], np.int32)


_ITEM, _COUNT, _DECAYED = "item_index", "num_lines", "decayed_lines"


class CountScores:
    """Personal frequency or decayed frequency: the user's own row."""

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        self._matrix = matrix

    def block(self, users: IntArray) -> ScoreBlock:
        """The users' counts, float32 [B, N]."""
        return np.asarray(self._matrix[users].toarray(), np.float32)


class TypeScores:
    """What "personal" can mean for items never bought: the user's count of the item's type, times its share of it.

    score(u, i) = lines of u with items of i's type * popularity of i / (popularity of its type + 1).
    """

    def __init__(
        self, matrix: sparse.csr_matrix, item_type: npt.NDArray[np.int64], popularity: npt.NDArray[np.int64]
    ) -> None:
        num_items, num_types = len(item_type), int(item_type.max(initial=0)) + 1
        member = sparse.csr_matrix(
            (np.ones(num_items, np.float32), (np.arange(num_items), item_type)), (num_items, num_types)
        )
        self._by_type = (matrix @ member).tocsr()
        self._item_type = item_type
        of_type = np.bincount(item_type, weights=popularity, minlength=num_types)
        self._share = (popularity / (of_type[item_type] + 1)).astype(np.float32)

    def block(self, users: IntArray) -> ScoreBlock:
        """Type counts times share in the type, float32 [B, N]."""
        return np.asarray(self._by_type[users].toarray(), np.float32)[:, self._item_type] * self._share


class ItemNeighbors:
    """Item-kNN: cosine between items over users' damped counts, each item's K nearest kept, itself among them.

    score(u, i) = sum over the user's items j of count(u, j) * cos(j, i) ** AMPLIFICATION, i among the nearest of j.
    Cosine is over log(1 + count), of counts >= MIN_COUNT: a line longer ago than a half-life says little about what
    goes with what, and leaving such lines out made the neighbours better and three times faster on two dates.
    Amplification keeps two hundred weak neighbours from outvoting a few near ones.
    """

    def __init__(self, matrix: sparse.csr_matrix, num_neighbors: int = NUM_NEIGHBORS) -> None:
        self._history = matrix
        self._num_neighbors = num_neighbors

    @cached_property
    def nearest(self) -> sparse.csr_matrix:
        """Amplified cosines, CSR float32 [N, N]; fitted when first asked for (seconds on 20,000 items)."""
        recent = self._history.copy()
        recent.data[recent.data < MIN_COUNT] = 0
        recent.eliminate_zeros()
        nearest = nearest_by_cosine(recent.log1p(), self._num_neighbors)
        nearest.data **= np.float32(AMPLIFICATION)
        return nearest

    def block(self, users: IntArray) -> ScoreBlock:
        """Neighbour scores of all items, float32 [B, N]."""
        return np.asarray((self._history[users] @ self.nearest).toarray(), np.float32)


def nearest_by_cosine(matrix: sparse.csr_matrix, num_neighbors: int) -> sparse.csr_matrix:
    """Cosine between the columns of `matrix` [H, N], only the K largest of each row (ties of the K-th stay): [N, N]."""
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0), np.float64).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)
    by_user = (matrix @ sparse.diags(scale)).tocsr().astype(np.float32)
    by_item = by_user.T.tocsr()
    num_items = by_user.shape[1]
    columns: list[npt.NDArray[np.int32]] = [np.empty(0, np.int32)]
    values: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
    counts = np.zeros(num_items + 1, np.int64)
    for start in range(0, num_items, _ITEMS_AT_ONCE):
        part = (by_item[start : start + _ITEMS_AT_ONCE] @ by_user).tocsr()
        for j in range(part.shape[0]):
            row, column = _largest(part, j, num_neighbors)
            columns.append(column.astype(np.int32))
            values.append(row)
            counts[start + j + 1] = len(row)
    return sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.cumsum(counts)), (num_items, num_items)
    )


def _largest(
    part: sparse.csr_matrix, j: int, k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Values and columns of the k largest entries of row j, and those equal to the k-th."""
    low, high = part.indptr[j], part.indptr[j + 1]
    row, column = part.data[low:high], part.indices[low:high]
    if len(row) > k:
        kept = row >= np.partition(row, len(row) - k)[len(row) - k]
        row, column = row[kept], column[kept]
    return row, column
