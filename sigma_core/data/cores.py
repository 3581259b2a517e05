"""The k-core of user-item pairs: what is left when users and items of too few are taken out again and again.

Knows no source and no time. Source: the usual thinning of public review data; two thresholds are our choice.
"""

import polars as pl

from sigma_core import columns as c


def core_pairs(pairs: pl.DataFrame, *, user_least: int, item_least: int) -> pl.DataFrame:
    """The largest part of `pairs` in which every user has `user_least` items or more and every item `item_least` users or more.

    Args:
        pairs: USER_ID and ITEM_ID, distinct rows without nulls.

    Returns:
        Rows of `pairs`, in their order; none when nothing is so dense.
    """
    while True:
        size = pairs.height
        for name, least in ((c.USER_ID, user_least), (c.ITEM_ID, item_least)):
            pairs = pairs.filter(pl.len().over(name) >= least)
        if pairs.height == size:
            return pairs
