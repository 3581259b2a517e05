"""Small tools of the fact modules: membership joins, list comparisons and rows of figures.

A *fact* is a column or a row computed from an artifact so that a contract can speak about it: GX reads flat tables and no
lists, vectors or other tables. Facts are never null unless a contract says what null means: GX skips nulls, which would make
an uncomputable fact pass. Names of fact columns are those of `data_contracts/` (there marked `computed`), never published.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from sigma_core import columns as c

Frames = dict[str, pl.DataFrame]


def known(column: str, ids: Iterable[str] | pl.Series, name: str) -> pl.Expr:
    """Bool expression `name`: the value of `column` is one of `ids`; null is not."""
    return pl.col(column).is_in(id_series(ids).implode()).fill_null(False).alias(name)


def num_unknown(column: str, ids: Iterable[str] | pl.Series, name: str) -> pl.Expr:
    """Int64 expression `name`: entries of the list `column` that are none of `ids`; a null list counts as one."""
    inside = pl.element().is_in(id_series(ids).implode()).fill_null(False)
    outside = pl.col(column).list.eval(~inside).list.sum()
    return outside.cast(pl.Int64).fill_null(1).alias(name)


def id_series(ids: Iterable[str] | pl.Series) -> pl.Series:
    """Ids as a series of distinct strings."""
    series = ids if isinstance(ids, pl.Series) else pl.Series(list(ids), dtype=pl.String)
    return series.cast(pl.String).unique()


def num_repeats(column: str, name: str) -> pl.Expr:
    """Int64 expression `name`: entries of the list `column` that stood there before."""
    return (pl.col(column).list.len().cast(pl.Int64) - pl.col(column).list.n_unique().cast(pl.Int64)).alias(
        name
    )


def true(expression: pl.Expr, name: str) -> pl.Expr:
    """The bool expression as a fact: null means it could not be shown, so it is False."""
    return expression.fill_null(False).alias(name)


def vector_facts(ids: Sequence[str], vectors: np.ndarray) -> pl.DataFrame:
    """A row a vector: ITEM_ID, is_finite, norm (-1 where the vector is not finite)."""
    if vectors.ndim != 2 or len(ids) != len(vectors):
        raise ValueError(f"{len(ids)} ids and vectors of shape {vectors.shape} arrived; needed [ids, width].")
    finite = np.isfinite(vectors).all(axis=1)
    norm = np.full(len(vectors), -1.0)
    norm[finite] = np.linalg.norm(vectors[finite].astype(np.float64), axis=1)
    return pl.DataFrame(
        {c.ITEM_ID: pl.Series(list(ids), dtype=pl.String), "is_finite": finite, "norm": norm},
        schema={c.ITEM_ID: pl.String, "is_finite": pl.Boolean, "norm": pl.Float64},
    )


def figures(**values: float | int | bool | str) -> pl.DataFrame:
    """One row of figures."""
    return pl.DataFrame({name: [value] for name, value in values.items()})


def num_missing(wanted: Iterable[str] | pl.Series, present: Iterable[str] | pl.Series) -> int:
    """How many distinct ids of `wanted` are not in `present`."""
    ids = id_series(wanted)
    return int((~ids.is_in(id_series(present).implode())).sum())
