"""Item ID embeddings: the frozen collaborative teacher, v_ID of the paper.

Holds the `ItemIdEmbeddings` artifact and its fit by implicit-feedback ALS (library `implicit`). The paper takes v_ID from an
online ranking model; a user's own vectors may stand in for these through the tabular source. It reads events only: no text.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TABLE, digest_arrays, digest_json
from sigma_core.config import GroundingConfig

VECTORS = "vectors.safetensors"


class ItemIdEmbeddings:
    """v_ID of the items that enough users bought before the refit.

    Attributes:
        item_ids: N ids, strictly ascending.
        vectors: float32 [N, id_dim + 1]: factors scaled to a mean norm of 1, last column the standardized log1p(events).
        num_events: total events the fit saw, for the summary.
    """

    def __init__(self, item_ids: Sequence[str], vectors: np.ndarray, num_events: int = 0) -> None:
        self.item_ids = list(item_ids)
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.num_events = num_events
        if len(self.item_ids) != len(self.vectors) or self.vectors.ndim != 2:
            raise ValueError(
                f"ItemIdEmbeddings: {len(self.item_ids)} ids but vectors of shape {self.vectors.shape}; needed [ids, width]."
            )
        if any(a >= b for a, b in zip(self.item_ids, self.item_ids[1:], strict=False)):
            raise ValueError(
                "ItemIdEmbeddings: item_ids must be distinct and ascending; sort ids and vectors together."
            )

    @property
    def factors(self) -> np.ndarray:
        """float32 [N, id_dim]: the collaborative part, without the popularity column."""
        return self.vectors[:, :-1]

    def save(self, directory: Path) -> None:
        """Write ids as Parquet and vectors as safetensors."""
        from safetensors.numpy import save_file

        pl.DataFrame({c.ITEM_ID: self.item_ids}, schema={c.ITEM_ID: pl.String}).write_parquet(
            directory / TABLE
        )
        save_file({"vectors": self.vectors, "num_events": np.array([self.num_events])}, directory / VECTORS)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(directory / VECTORS)
        ids = pl.read_parquet(directory / TABLE)[c.ITEM_ID].to_list()
        return cls(ids, tensors["vectors"], int(tensors["num_events"][0]))

    def digest(self) -> str:
        """Digest of ids and vectors."""
        return digest_json([self.item_ids, digest_arrays({"vectors": self.vectors})])

    def summary(self) -> dict[str, Any]:
        """Items, width, events seen, and the spread of the factors' norms."""
        norms = np.linalg.norm(self.factors, axis=1) if self.item_ids else np.zeros(1)
        return {
            "items": len(self.item_ids),
            "width": int(self.vectors.shape[1]),
            "events": self.num_events,
            "factor_norm_p05": round(float(np.quantile(norms, 0.05)), 4),
            "factor_norm_p95": round(float(np.quantile(norms, 0.95)), 4),
        }


def fit_id_embeddings(
    events: pl.DataFrame, config: GroundingConfig, seed: int, threads: int, *, as_of: date | None = None
) -> ItemIdEmbeddings:
    """v_ID from the `id_window_days` days up to `as_of` (by default the newest event's day), that day included.

    Confidence of (user, item) is 1 + alpha * log1p(event lines). Items of fewer than `id_min_users` users get no vector.
    Bit-identical for the same events, config and seed, whatever `threads` (tested).

    Raises:
        ValueError: no item has enough users in the window.
    """
    last = as_of or events[c.EVENT_DATE].max()
    if not isinstance(last, date):
        raise ValueError("fit_id_embeddings: no events arrived; ingest the days before the refit first.")
    counts = _counts(events, last, config)
    if counts.height == 0:
        raise ValueError(
            f"fit_id_embeddings: no item has {config.id_min_users} users in the {config.id_window_days} days up to {last}; "
            "widen grounding.id_window_days or lower grounding.id_min_users."
        )
    item_ids = counts[c.ITEM_ID].unique().sort()
    factors_ND = _als(counts, item_ids, config, seed, threads)
    factors_ND /= max(float(np.linalg.norm(factors_ND, axis=1).mean()), 1e-12)
    totals = counts.group_by(c.ITEM_ID).agg(pl.col("n").sum()).sort(c.ITEM_ID)["n"].to_numpy()
    popularity = np.log1p(totals.astype(np.float64))
    popularity = (popularity - popularity.mean()) / max(float(popularity.std()), 1e-12)
    vectors = np.concatenate([factors_ND, popularity[:, None].astype(np.float32)], axis=1)
    return ItemIdEmbeddings(item_ids.to_list(), vectors, int(totals.sum()))


def _counts(events: pl.DataFrame, last: date, config: GroundingConfig) -> pl.DataFrame:
    window = events.filter(
        (pl.col(c.EVENT_DATE) > last - timedelta(days=config.id_window_days)) & (pl.col(c.EVENT_DATE) <= last)
    )
    counts = window.group_by(c.USER_ID, c.ITEM_ID).agg(pl.len().alias("n"))
    return counts.filter(pl.len().over(c.ITEM_ID) >= config.id_min_users).sort(c.USER_ID, c.ITEM_ID)


def _als(
    counts: pl.DataFrame, item_ids: pl.Series, config: GroundingConfig, seed: int, threads: int
) -> np.ndarray:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    user_ids = counts[c.USER_ID].unique().sort()
    rows = user_ids.search_sorted(counts[c.USER_ID]).to_numpy()
    cols = item_ids.search_sorted(counts[c.ITEM_ID]).to_numpy()
    confidence = 1.0 + config.id_alpha * np.log1p(counts["n"].to_numpy())
    matrix = csr_matrix((confidence.astype(np.float32), (rows, cols)), shape=(len(user_ids), len(item_ids)))
    with threadpool_limits(
        1, user_api="blas"
    ):  # implicit threads by itself; nested BLAS threads make it many times slower
        model = AlternatingLeastSquares(
            factors=config.id_dim,
            regularization=config.id_regularization,
            alpha=1.0,
            iterations=config.id_iterations,
            num_threads=threads,
            random_state=seed,
        )
        model.fit(matrix, show_progress=False)
    return np.array(model.item_factors, dtype=np.float32)
