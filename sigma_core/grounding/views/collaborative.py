"""Collaborative view: two items that users buy together more often than their popularity explains.

Together means in one session of one user (ids may start anew with every user), or by one user within one of the 7-day spans
counted back from the last day; a pair in one session counts in both. Source: paper section on grounding (co-click, co-purchase); the weighting is our choice.
"""

from datetime import date, timedelta
from typing import Final

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix, triu

from sigma_core import columns as c
from sigma_core.grounding.views.base import ViewInputs, as_pairs, sample_weighted

NAME: Final = "collaborative"
SPAN_DAYS: Final = 7
MIN_TOGETHER: Final = 3  # one coincidence says nothing (a session counts twice)
MIN_USERS: Final = 2  # nor does one household's habit
DISCOUNT: Final = 5.0  # a pair of n users keeps n / (n + 5) of its weight: rare pairs have wild ratios
PAIRS_PER_ITEM: Final = 12
_CHUNK: Final = 200_000


def pairs(inputs: ViewInputs) -> pl.DataFrame:
    """Item-item pairs weighted by discounted positive PMI: an item's `PAIRS_PER_ITEM` best, sampled to the limit."""
    window = _window(inputs)
    item_ids = inputs.items[c.ITEM_ID].sort()
    if window.height == 0:
        return as_pairs(_frame(inputs.items, item_ids, *_nothing()), NAME, is_pseudo=False)
    last = window[c.EVENT_DATE].max()
    assert isinstance(last, date)
    span = (pl.lit(last) - pl.col(c.EVENT_DATE)).dt.total_days() // SPAN_DAYS
    spans = window.select(pl.struct(c.USER_ID, span.alias("span")).rank("dense").alias("group"), c.ITEM_ID)
    sessions = window.filter(pl.col(c.SESSION_ID).is_not_null()).select(
        pl.struct(c.USER_ID, c.SESSION_ID).rank("dense").alias("group"), c.ITEM_ID
    )
    together = _counts(spans, item_ids) + _counts(sessions, item_ids)
    num_groups = spans["group"].n_unique() + sessions["group"].n_unique()
    row, col, pmi = _associated(together, num_groups)
    row, col, weight = _discounted(window, item_ids, row, col, pmi)
    found = _frame(inputs.items, item_ids, row, col, weight)
    for column in (c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID):
        found = found.filter(pl.col(c.WEIGHT).rank("ordinal", descending=True).over(column) <= PAIRS_PER_ITEM)
    return as_pairs(sample_weighted(found, inputs.config.pairs_per_view, inputs.seed), NAME, is_pseudo=False)


def _window(inputs: ViewInputs) -> pl.DataFrame:
    last = inputs.events[c.EVENT_DATE].max()
    if not isinstance(last, date):
        return inputs.events.clear()
    first = last - timedelta(days=inputs.config.id_window_days - 1)
    known = inputs.items[c.ITEM_ID].implode()
    return inputs.events.filter((pl.col(c.EVENT_DATE) >= first) & pl.col(c.ITEM_ID).is_in(known))


def _counts(groups: pl.DataFrame, item_ids: pl.Series) -> csr_matrix:
    # Number of groups that hold both items; the diagonal is the number of groups that hold the item.
    rows = groups.unique().sort("group", c.ITEM_ID)
    group = rows["group"].to_numpy().astype(np.int64)
    column = item_ids.search_sorted(rows[c.ITEM_ID]).to_numpy()
    height = int(group.max()) + 1 if len(group) else 1
    held = csr_matrix((np.ones(len(group), np.float32), (group, column)), shape=(height, len(item_ids)))
    return (held.T @ held).tocsr()


def _associated(together: csr_matrix, num_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Pairs seen together more often than their popularity explains, with their PMI, in row-major order.
    alone = together.diagonal().astype(np.float64)
    upper = triu(together, k=1).tocoo()
    often = upper.data >= MIN_TOGETHER
    row, col, count = upper.row[often], upper.col[often], upper.data[often].astype(np.float64)
    pmi = np.log(count * num_groups / (alone[row] * alone[col]))
    order = np.lexsort((col, row))
    order = order[pmi[order] > 0]
    return row[order], col[order], pmi[order]


def _discounted(
    window: pl.DataFrame, item_ids: pl.Series, row: np.ndarray, col: np.ndarray, pmi: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # PMI shrunk by the number of users who bought both within the window.
    bought = (
        window.select(pl.col(c.USER_ID).rank("dense").alias("user"), c.ITEM_ID)
        .unique()
        .sort(c.ITEM_ID, "user")
    )
    item = item_ids.search_sorted(bought[c.ITEM_ID]).to_numpy()
    user = bought["user"].to_numpy().astype(np.int64)
    held = csr_matrix(
        (np.ones(len(user), np.float32), (item, user)), shape=(len(item_ids), int(user.max()) + 1)
    )
    users = np.zeros(len(row))
    for start in range(0, len(row), _CHUNK):
        both = held[row[start : start + _CHUNK]].multiply(held[col[start : start + _CHUNK]])
        users[start : start + _CHUNK] = np.asarray(both.sum(axis=1)).ravel()
    keep = users >= MIN_USERS
    weight = pmi * users / (users + DISCOUNT)
    return row[keep], col[keep], weight[keep]


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)


def _frame(
    items: pl.DataFrame, item_ids: pl.Series, row: np.ndarray, col: np.ndarray, weight: np.ndarray
) -> pl.DataFrame:
    text = items.sort(c.ITEM_ID)[c.TEXT]
    out = pl.DataFrame(
        {
            c.ANCHOR_TEXT: text.gather(row),
            c.ANCHOR_ITEM_ID: item_ids.gather(row),
            c.POSITIVE_ITEM_ID: item_ids.gather(col),
            c.WEIGHT: weight,
            "positive_text": text.gather(col),
        }
    )
    return out.filter(pl.col(c.ANCHOR_TEXT) != pl.col("positive_text")).drop("positive_text")
