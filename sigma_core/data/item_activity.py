"""How much the items of a day are bought, and how that changes: counts, and the logs of them that the model reads.

Counts come from a day's catalog, which knows nothing after its day. Holds arithmetic only, no model. Source: our choice; the
paper's frozen item embeddings come from an online ranker, which knows such counts.

Shape legend: N items, K codes, A counts of an item, S statistics.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from sigma_core import columns as c

ACTIVITY_SCHEMA: Final[dict[str, Any]] = {
    c.ITEM_ID: pl.String,
    c.NUM_EVENTS_56D: pl.Int64,
    c.NUM_EVENTS_14D: pl.Int64,
    c.IS_NEW: pl.Boolean,
    c.IS_TAIL: pl.Boolean,
}
NUM_ACTIVITY_STATS: Final = 4
PERIODS: Final = 4  # 14-day periods in the 56 days


def activity_of(catalog: pl.DataFrame) -> pl.DataFrame:
    """The columns of `ACTIVITY_SCHEMA` of a day's catalog."""
    return catalog.select(*ACTIVITY_SCHEMA)


def aligned_counts(activity: pl.DataFrame, item_ids: Sequence[str]) -> np.ndarray:
    """float32 (N, A) in the order of `item_ids`: events of 56 days, of 14 days, 1 if new, 1 if of the long tail.

    An item that the day does not know has zeros.
    """
    wanted = pl.DataFrame({c.ITEM_ID: item_ids}, schema={c.ITEM_ID: pl.String})
    found = wanted.join(activity.select(*ACTIVITY_SCHEMA), on=c.ITEM_ID, how="left", maintain_order="left")
    return found.drop(c.ITEM_ID).cast(pl.Float32).fill_null(0.0).to_numpy()


def item_statistics(counts_NA: np.ndarray) -> np.ndarray:
    """float32 (N, S): log of 1 + events, log trend of the last 14 days (0 when steady), is new, is of the tail."""
    sold, lately, new, tail = np.asarray(counts_NA, dtype=np.float32).T
    return np.stack((np.log1p(sold), _trend(sold, lately), new, tail), axis=1).astype(np.float32)


def prefix_statistics(counts_NA: np.ndarray, code_N: np.ndarray, num_codes: int) -> np.ndarray:
    """float32 (K, S) of the items under each first code: logs of 1 + events, trend, 1 + events of new, of tail items."""
    sold, lately, new, tail = np.asarray(counts_NA, dtype=np.float64).T
    total, recent, fresh, rare = (
        np.bincount(code_N, weights=weights, minlength=num_codes)
        for weights in (sold, lately, sold * new, sold * tail)
    )
    columns = (np.log1p(total), _trend(total, recent), np.log1p(fresh), np.log1p(rare))
    return np.stack(columns, axis=1).astype(np.float32)


def _trend(sold: np.ndarray, lately: np.ndarray) -> np.ndarray:
    trend: np.ndarray = np.log((lately + 1.0) / (sold / PERIODS + 1.0))
    return trend
