"""Item ID embeddings: the frozen collaborative teacher, v_ID of the paper.

Holds the `ItemIdEmbeddings` artifact and its fit by implicit-feedback ALS (library `implicit`). The paper takes v_ID from an
online ranking model; a user's own vectors may stand in for these through the tabular source. It reads events only: no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TABLE, digest_arrays, digest_json
from sigma_core.config import GroundingConfig
from sigma_core.grounding.cross_fitting import CrossFitted, fold_of, item_factors

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

VECTORS = "vectors.safetensors"


class ItemIdEmbeddings:
    """v_ID of the items that enough users bought before the refit.

    Attributes:
        item_ids: N ids, strictly ascending.
        vectors: float32 [N, id_dim + 1]: factors scaled to a mean norm of 1, last column the standardized log1p(events).
        num_events: total events the fit saw, for the summary.
        out_of_fold: the same without each fold of users, for training; None where vectors were brought along or folds are off.
    """

    def __init__(
        self,
        item_ids: Sequence[str],
        vectors: np.ndarray,
        num_events: int = 0,
        out_of_fold: CrossFitted | None = None,
    ) -> None:
        self.item_ids = list(item_ids)
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.num_events = num_events
        self.out_of_fold = out_of_fold
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
        save_file(self._tensors() | {"num_events": np.array([self.num_events])}, directory / VECTORS)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(directory / VECTORS)
        ids = pl.read_parquet(directory / TABLE)[c.ITEM_ID].to_list()
        out_of_fold = None
        if "out_of_fold" in tensors:
            until = date.fromordinal(int(tensors["out_of_fold_until"][0]))
            out_of_fold = CrossFitted(tensors["out_of_fold"], tensors["out_of_fold_known"], until)
        return cls(ids, tensors["vectors"], int(tensors["num_events"][0]), out_of_fold)

    def digest(self) -> str:
        """Digest of ids and vectors, those of the folds included."""
        return digest_json([self.item_ids, digest_arrays(self._tensors())])

    def _tensors(self) -> dict[str, np.ndarray]:
        if self.out_of_fold is None:
            return {"vectors": self.vectors}
        return {
            "vectors": self.vectors,
            "out_of_fold": self.out_of_fold.vectors_FNW,
            "out_of_fold_known": self.out_of_fold.known_FN,
            "out_of_fold_until": np.array([self.out_of_fold.until.toordinal()]),
        }

    def summary(self) -> dict[str, Any]:
        """Items, width, events seen, and the spread of the factors' norms."""
        norms = np.linalg.norm(self.factors, axis=1) if self.item_ids else np.zeros(1)
        return {
            "items": len(self.item_ids),
            "width": int(self.vectors.shape[1]),
            "events": self.num_events,
            "factor_norm_p05": round(float(np.quantile(norms, 0.05)), 4),
            "factor_norm_p95": round(float(np.quantile(norms, 0.95)), 4),
            **self._own_part(),
        }

    def _own_part(self) -> dict[str, Any]:
        """How much of a vector one fold of users makes: cosine of what it is with and without them, over items and folds."""
        if self.out_of_fold is None or not self.item_ids:
            return {}
        without = self.out_of_fold.vectors_FNW[..., :-1]
        norms = np.linalg.norm(without, axis=2) * np.linalg.norm(self.factors, axis=1)
        cosine = (without * self.factors).sum(axis=2) / norms.clip(1e-12)
        known = self.out_of_fold.known_FN
        return {
            "folds": self.out_of_fold.folds,
            "cosine_without_a_fold_p10": round(float(np.quantile(cosine[known], 0.1)), 4)
            if known.any()
            else None,
            "unknown_without_a_fold": round(float(1 - known.mean()), 4),
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
    taken = _Interactions.of(counts, config)
    user_factors, factors_ND = _als(taken, config, seed, threads)
    scale = _Scale.of(factors_ND, taken.events)
    out_of_fold = _cross_fitted(taken, user_factors, scale, config, last) if config.id_folds > 1 else None
    vectors = scale.columns(factors_ND, taken.events)
    return ItemIdEmbeddings(taken.item_ids, vectors, int(taken.events.sum()), out_of_fold)


class _Scale(NamedTuple):
    """What v_ID of everyone is divided by, and so every fold's: the factors' mean norm, mean and spread of log1p(events)."""

    norm: float
    center: float
    spread: float

    @classmethod
    def of(cls, factors_ND: np.ndarray, events_N: np.ndarray) -> "_Scale":
        norm = max(float(np.linalg.norm(factors_ND, axis=1).mean()), 1e-12)
        popularity = np.log1p(events_N)
        return cls(norm, float(popularity.mean()), max(float(popularity.std()), 1e-12))

    def columns(self, factors_ND: np.ndarray, events_N: np.ndarray) -> np.ndarray:
        """float32 (N, D + 1)."""
        popularity = (np.log1p(events_N) - self.center) / self.spread
        return np.concatenate([factors_ND / self.norm, popularity[:, None]], axis=1).astype(np.float32)


def _cross_fitted(
    taken: "_Interactions", user_factors_UD: np.ndarray, scale: _Scale, config: GroundingConfig, until: date
) -> CrossFitted:
    """v_ID without each fold. An item needs as many users outside a fold as it needs in all: with fewer, it is known at all
    because the fold bought it.
    """
    folds = config.id_folds
    fold_U = np.array([fold_of(user, folds) for user in taken.user_ids])
    vectors, known = [], []
    for fold in range(folds):
        kept_U = fold_U != fold
        part = taken.only(kept_U)
        factors = item_factors(part.confidence_UN, user_factors_UD[kept_U], config.id_regularization)
        as_if_all = part.events * (folds / (folds - 1))  # as if the fold had bought like everyone else
        vectors.append(scale.columns(factors, as_if_all))
        known.append(part.users >= config.id_min_users)
    known_FN = np.stack(known)
    return CrossFitted(np.stack(vectors) * known_FN[..., None], known_FN, until)


def _counts(events: pl.DataFrame, last: date, config: GroundingConfig) -> pl.DataFrame:
    window = events.filter(
        (pl.col(c.EVENT_DATE) > last - timedelta(days=config.id_window_days)) & (pl.col(c.EVENT_DATE) <= last)
    )
    counts = window.group_by(c.USER_ID, c.ITEM_ID).agg(pl.len().alias("n"))
    return counts.filter(pl.len().over(c.ITEM_ID) >= config.id_min_users).sort(c.USER_ID, c.ITEM_ID)


@dataclass(frozen=True)
class _Interactions:
    """Who took what: ids, confidences of the pairs (U, N), event lines and users of each item."""

    user_ids: list[str]
    item_ids: list[str]
    confidence_UN: "csc_matrix"
    lines_UN: "csc_matrix"

    @classmethod
    def of(cls, counts: pl.DataFrame, config: GroundingConfig) -> "_Interactions":
        from scipy.sparse import csc_matrix

        users, items = (counts[name].unique().sort() for name in (c.USER_ID, c.ITEM_ID))
        at = (
            users.search_sorted(counts[c.USER_ID]).to_numpy(),
            items.search_sorted(counts[c.ITEM_ID]).to_numpy(),
        )
        shape, lines = (len(users), len(items)), counts["n"].to_numpy().astype(np.float64)
        confidence = (1.0 + config.id_alpha * np.log1p(lines)).astype(np.float32)
        made = (csc_matrix((values, at), shape=shape) for values in (confidence, lines))
        return cls(users.to_list(), items.to_list(), *made)

    def only(self, user_U: np.ndarray) -> "_Interactions":
        """The same of some of the users."""
        kept = [user for user, keep in zip(self.user_ids, user_U.tolist(), strict=True) if keep]
        return _Interactions(
            kept, self.item_ids, *(m.tocsr()[user_U].tocsc() for m in (self.confidence_UN, self.lines_UN))
        )

    @property
    def events(self) -> np.ndarray:
        """Event lines of each item."""
        return np.asarray(self.lines_UN.sum(axis=0), dtype=np.float64).reshape(-1)

    @property
    def users(self) -> np.ndarray:
        """Users of each item."""
        return np.diff(self.lines_UN.indptr)


def _als(
    taken: _Interactions, config: GroundingConfig, seed: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of users and of items, float32."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

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
        model.fit(taken.confidence_UN.tocsr(), show_progress=False)
    return np.array(model.user_factors, dtype=np.float32), np.array(model.item_factors, dtype=np.float32)
