"""More scores of catalog items for users: EASE, TIFU-KNN, nearness of texts to the history, and groups of items.

Like `user_scores.py` they read histories alone and no request. Sources: EASE, Steck, "Embarrassingly Shallow Autoencoders for
Sparse Data" (2019); TIFU-KNN, Hu et al., "Modeling Personalized Item Frequency Information for Next-basket Recommendation"
(2020). Settings were chosen on 2017-04-08, 2017-06-26 and 2017-11-15.
"""

from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from sigma_core import columns as c
from sigma_core.evaluation.requests import IntArray
from sigma_core.evaluation.text_match import CosineMatch
from sigma_core.evaluation.user_scores import PurchaseHistory, ScoreBlock

# Shape legend: H users of the history (the last row is that of nobody), N items, B users of a block, U distinct texts.
EASE_LAMBDA: Final = 60.0  # 20 to 600 tried
GROUP_SIZE: Final = 3
BASKET_DECAY: Final = 0.95
GROUP_DECAY: Final = 0.9
NUM_NEIGHBORS: Final = 300
OWN_WEIGHT: Final = 0.5
TEXT_SHARPNESS: Final = 10.0
_COLUMNS_AT_ONCE: Final = 2048


class EaseScores:
    """EASE over all items, exact: score(u, i) = sum over j != i of x_uj B_ji, B_ji = -P_ji / P_ii, P = (X'X + lambda I)^-1.

    There are ten times fewer users than items, so P is never made: with K = (XX' + lambda I)^-1, [H, H],
    lambda P = I - X' K X, and the score is x_ui - (x_u P)_i / P_ii. Negative scores become 0.
    """

    def __init__(self, matrix: sparse.csr_matrix, ridge: float = EASE_LAMBDA) -> None:
        self._x = matrix.astype(np.float32)
        self._ridge = ridge

    @cached_property
    def _fitted(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """K [H, H] and the diagonal of lambda P [N]; made when first asked for."""
        gram = (self._x @ self._x.T).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += self._ridge
        inverse = np.linalg.inv(gram).astype(np.float32)
        columns, diagonal = self._x.tocsc(), np.empty(self._x.shape[1], np.float32)
        for start in range(0, len(diagonal), _COLUMNS_AT_ONCE):
            part = columns[:, start : start + _COLUMNS_AT_ONCE]
            held = np.asarray(part.T @ inverse)  # [n, H]
            diagonal[start : start + _COLUMNS_AT_ONCE] = (
                1 - np.asarray(part.T.multiply(held).sum(axis=1)).ravel()
            )
        return inverse, np.maximum(diagonal, 1e-6)

    def block(self, users: IntArray) -> ScoreBlock:
        """EASE's scores of all items, float32 [B, N]."""
        inverse, diagonal = self._fitted
        mine = self._x[users]
        through = np.asarray((mine @ self._x.T).toarray(), np.float32) @ inverse  # [B, H]
        back = np.asarray((self._x.T @ through.T).T, np.float32)  # x_u X' K X, [B, N]
        own = mine.toarray()
        return np.asarray(np.maximum(own - (own - back) / diagonal, 0), np.float32)


class TifuKnnScores:
    """TIFU-KNN: the user's decayed item frequencies, mixed with the mean of the nearest users'.

    A basket is a day. Baskets are counted back from the newest in groups of `GROUP_SIZE`; a line in basket p of group g
    weighs BASKET_DECAY ** p * GROUP_DECAY ** g / baskets of the group, and the whole is divided by the number of groups.
    Neighbours are the nearest by Euclidean distance; the user is none of them.
    """

    def __init__(
        self, vectors: sparse.csr_matrix, neighbors: int = NUM_NEIGHBORS, own: float = OWN_WEIGHT
    ) -> None:
        self._vectors = vectors.astype(np.float32)
        self._norms = np.asarray(self._vectors.multiply(self._vectors).sum(axis=1), np.float32).ravel()
        self._neighbors, self._own = neighbors, own

    def block(self, users: IntArray) -> ScoreBlock:
        """own * frequencies + (1 - own) * mean of the neighbours', float32 [B, N]."""
        mine, nobody = self._vectors[users], self._vectors.shape[0] - 1
        distance = self._norms - 2 * (mine @ self._vectors.T).toarray()
        distance[np.arange(len(users)), users] = np.inf
        distance[:, nobody] = np.inf
        few = min(self._neighbors, max(nobody - 1, 0))
        if not few:
            return np.asarray(self._own * mine.toarray(), np.float32)
        near = np.argpartition(distance, few - 1, axis=1)[:, :few]
        rows = np.repeat(np.arange(len(users)), few)
        mean = sparse.csr_matrix(
            (np.full(near.size, 1 / few, np.float32), (rows, near.ravel())), distance.shape
        )
        return np.asarray((self._own * mine + (1 - self._own) * (mean @ self._vectors)).toarray(), np.float32)


def basket_frequencies(
    events: pl.DataFrame,
    item_ids: pl.Series,
    history: PurchaseHistory,
    group_size: int = GROUP_SIZE,
    basket_decay: float = BASKET_DECAY,
    group_decay: float = GROUP_DECAY,
) -> sparse.csr_matrix:
    """Temporal item frequencies of TIFU-KNN, CSR float32 [H + 1, N], rows and columns as in `history`."""
    catalog = pl.DataFrame({c.ITEM_ID: item_ids}).with_row_index("item")
    lines = events.select(c.USER_ID, c.EVENT_DATE, c.ITEM_ID).unique().join(catalog, on=c.ITEM_ID)
    age = pl.col(c.EVENT_DATE).rank("dense", descending=True).over(c.USER_ID).cast(pl.Int64) - 1
    lines = lines.with_columns((age // group_size).alias("group"), (age % group_size).alias("place"))
    size = (pl.col("place").max() + 1).over(c.USER_ID, "group")
    groups = (pl.col("group").max() + 1).over(c.USER_ID)
    lines = lines.with_columns(
        (basket_decay ** pl.col("place") * group_decay ** pl.col("group") / size / groups).alias("weight")
    )
    lines = lines.group_by(c.USER_ID, "item").agg(pl.col("weight").sort().sum()).sort(c.USER_ID, "item")
    rows = history.rows_of(lines[c.USER_ID].to_list())
    where = (rows, lines["item"].to_numpy().astype(np.int64))
    return sparse.csr_matrix((lines["weight"].to_numpy().astype(np.float32), where), history.counts.shape)


class TextNeighbors:
    """Items whose words are near those of the history: the only collaborative-free score that new items can have.

    score(u, i) = sum over the user's texts t of log(1 + decayed lines of t) * exp(TEXT_SHARPNESS * (cos(t, text of i) - 1)).
    """

    def __init__(self, matrix: sparse.csr_matrix, texts: CosineMatch) -> None:
        self._texts, self._taken = texts, _by_group(matrix, texts.text_of).log1p()

    @cached_property
    def _near(self) -> ScoreBlock:
        vectors = self._texts.vectors
        return np.asarray(np.exp(TEXT_SHARPNESS * (vectors @ vectors.T - 1)), np.float32)

    def block(self, users: IntArray) -> ScoreBlock:
        """Nearness of every item's words to the users' histories, float32 [B, N]."""
        return np.asarray(self._taken[users] @ self._near, np.float32)[:, self._texts.text_of]


class GroupPopularity:
    """The same for all users: how much an item's group (its category) is bought, which is known of an item with no sales yet."""

    def __init__(self, group: npt.NDArray[np.int64], popularity: npt.NDArray[np.int64]) -> None:
        of_group = np.bincount(group, weights=popularity)
        self._scores = of_group[group].astype(np.float32)

    def block(self, users: IntArray) -> ScoreBlock:
        """Lines of each item's group, float32 [B, N]."""
        return np.tile(self._scores, (len(users), 1))


def _by_group(matrix: sparse.csr_matrix, group: npt.NDArray[np.int64]) -> sparse.csr_matrix:
    """[H, N] summed over the items of each group, CSR."""
    shape = (len(group), int(group.max(initial=0)) + 1)
    member = sparse.csr_matrix((np.ones(len(group), np.float32), (np.arange(len(group)), group)), shape)
    return (matrix @ member).tocsr()
