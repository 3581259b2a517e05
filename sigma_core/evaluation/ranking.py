"""Top-n columns of a score matrix under one stated tie rule: the earlier column wins.

Callers put the columns into the order they want ties broken in (28-day event lines, then item id), so equal scores
give the same list on every machine. Our choice; tasks.md states the rule.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core.evaluation.requests import NO_ITEM, IntArray

_COLUMN_BITS = 32


def top_columns(scores: npt.NDArray[np.float32], n: int, *, positive_only: bool = False) -> IntArray:
    """Columns of the n highest scores of each row, best first, equal scores by column.

    A non-negative float32 sorts like its bits do, so score and column fit one int64 key without a tie: one
    partition of the keys is exact, where a partition of the scores would cut ties at random.

    Args:
        scores: float32 [R, P]; a negative score means "never list". No NaN.
        n: length of a list.
        positive_only: items that score 0 are not listed either.

    Returns:
        int32 [R, n], -1 where a row has fewer columns to list.
    """
    num_rows, num_columns = scores.shape
    out = np.full((num_rows, n), NO_ITEM, np.int32)
    if num_columns == 0 or num_rows == 0:
        return out
    # + 0 turns -0.0, whose bits sort as negative, into 0.0
    keys = (np.ascontiguousarray(scores, np.float32) + np.float32(0)).view(np.int32).astype(np.int64)
    keys <<= _COLUMN_BITS
    keys |= np.arange(num_columns - 1, -1, -1, dtype=np.int64)
    taken = min(n, num_columns)
    if taken < num_columns:
        keys.partition(num_columns - taken, axis=1)
    best = np.sort(keys[:, num_columns - taken :], axis=1)[:, ::-1]
    columns = num_columns - 1 - (best & ((1 << _COLUMN_BITS) - 1))
    bits = best >> _COLUMN_BITS
    out[:, :taken] = np.where(bits > 0 if positive_only else bits >= 0, columns, NO_ITEM)
    return out


def tie_order(popularity: npt.NDArray[np.int64], item_ids: pl.Series) -> IntArray:
    """Rows in the order ties are broken: popularity descending, then item id (shorter first, so that 9 is before 10)."""
    frame = pl.DataFrame({"popularity": popularity, "length": item_ids.str.len_chars(), "item_id": item_ids})
    order = frame.with_row_index("row").sort(
        "popularity", "length", "item_id", descending=[True, False, False]
    )
    return order["row"].to_numpy().astype(np.int32)
