"""Facts of the artifacts that are no tables: vectors, encoder, codebooks, semantic IDs, checkpoints, the item index.

Each becomes a flat frame: a row an item, or one row of figures. What a probe costs (encoding texts, a beam search, a loss) is
computed by the caller, who has the model; here are only arrays and numbers, so that no model library is imported.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from sigma_assets.checks.facts_base import Frames, figures, id_series, known, num_missing, true, vector_facts
from sigma_core import columns as c


# ------------------------------------------------------------------------------------------- vectors
def id_embedding_facts(value: Any) -> Frames:
    """v_ID: `.item_ids`, `.vectors` and `.out_of_fold`, whose vectors without each fold of users must be finite too."""
    rows = vector_facts(value.item_ids, value.vectors)
    if value.out_of_fold is not None:
        finite = np.isfinite(value.out_of_fold.vectors_FNW).all(axis=(0, 2))
        rows = rows.with_columns(pl.col("is_finite") & pl.Series(finite))
    return {"item_id_embeddings": rows}


def embedding_facts(value: Any, *, item_ids: Iterable[str] | pl.Series) -> Frames:
    """v_text of a day; `item_ids` is that day's catalog, which must be covered whole."""
    return _embedding_facts("item_embeddings", value, item_ids)


def refit_embedding_facts(value: Any, *, item_ids: Iterable[str] | pl.Series) -> Frames:
    """v_text of the refit; `item_ids` is the catalog of the day before the month."""
    return _embedding_facts("refit_item_embeddings", value, item_ids)


def _embedding_facts(asset: str, value: Any, item_ids: Iterable[str] | pl.Series) -> Frames:
    wanted = id_series(item_ids)
    rows = vector_facts(value.item_ids, value.vectors).with_columns(
        pl.Series("text_hash", list(value.text_hashes), dtype=pl.String),
        known(c.ITEM_ID, wanted, "item_known"),
    )
    coverage = figures(num_items=len(wanted), num_missing=num_missing(wanted, value.item_ids))
    return {asset: rows, "coverage": coverage}


def encoder_facts(
    value: Any, *, probe_texts: Sequence[str], loss_before: float = 1.0, loss_after: float = 0.0
) -> Frames:
    """The encoder on a handful of texts, encoded together and one by one.

    Args:
        value: has `.encode(texts)` and `.text_dim`.
        probe_texts: at least two distinct texts, for example item texts of the catalog.
        loss_before: mean training loss at the start.
        loss_after: mean training loss at the end; the contract warns when it is not lower.
    """
    together = np.asarray(value.encode(list(probe_texts)))
    alone = np.concatenate([np.asarray(value.encode([text])) for text in probe_texts])
    rows = vector_facts(list(probe_texts), together).rename({c.ITEM_ID: "probe_text"})
    distinct = len(np.unique(together.round(6), axis=0)) / max(len(set(probe_texts)), 1)
    probe = figures(
        width=int(together.shape[1]),
        width_is_declared=bool(together.shape[1] == value.text_dim),
        distinct_share=float(distinct),
        is_batch_free=bool(np.array_equal(together, alone)),
        loss_ratio=_ratio(loss_after, loss_before),
    )
    return {"grounded_encoder": rows, "probe": probe}


# --------------------------------------------------------------------------------------- semantic IDs
def codebook_facts(value: Any, *, item_ids: Iterable[str] | pl.Series) -> Frames:
    """Codebooks: a row a level, a row a refit item, and figures.

    Args:
        value: `.codebooks` [L, K, D], `.item_ids`, `.codes` [N, L], `.prefix_length`, `.health` of the fit.
        item_ids: items of the refit's embeddings, which must all have codes.
    """
    num_levels, size = value.codebooks.shape[:2]
    codes = np.asarray(value.codes)
    finite = np.isfinite(value.codebooks).all(axis=(1, 2))
    used = [len(np.unique(codes[:, level])) for level in range(num_levels)]
    levels = pl.DataFrame(
        {
            "level": list(range(num_levels)),
            "num_used": used,
            "used_share": [count / max(min(size, len(codes)), 1) for count in used],
            "is_finite": finite.tolist(),
        },
        schema={"level": pl.Int64, "num_used": pl.Int64, "used_share": pl.Float64, "is_finite": pl.Boolean},
    )
    items = _code_rows(value.item_ids, codes, size)
    groups = np.unique(codes[:, : value.prefix_length], axis=0, return_counts=True)[1]
    health = figures(
        num_items=len(codes),
        num_missing=num_missing(item_ids, value.item_ids),
        num_groups=len(groups),
        largest_group_ratio=float(groups.max() / groups.mean()) if len(codes) else 0.0,
        prefix_entropy_share=_entropy_share(groups, size**value.prefix_length),
        explained=_figure(value.health, "explained", 1.0),
        prefix_purity=_figure(value.health, "prefix_purity", 1.0),
        distinct_collision_rate=_figure(value.health, "distinct_collision_rate", 0.0),
        prefix_changed_share=_figure(value.health, "prefix_changed_share", 0.0),
    )
    return {"codebooks": levels, "items": items, "health": health}


def _entropy_share(groups: np.ndarray, most_groups: int) -> float:
    """Entropy of the prefix groups over the best there can be; 1 where there can be one group only."""
    total = groups.sum()
    best = np.log2(max(min(most_groups, total), 1))
    share = groups / max(total, 1)
    return float(-(share * np.log2(share)).sum() / best) if best > 0 else 1.0


def _figure(health: Mapping[str, Any], name: str, otherwise: float) -> float:
    """A figure of the fit; `otherwise` where it was not taken (no categories, no month before)."""
    value = health.get(name)
    return otherwise if value is None else float(value)


def _code_rows(item_ids: Sequence[str], codes: np.ndarray, size: int) -> pl.DataFrame:
    in_range = ((codes >= 0) & (codes < size)).all(axis=1)
    return pl.DataFrame(
        {c.ITEM_ID: list(item_ids), "codes_in_range": in_range.tolist()},
        schema={c.ITEM_ID: pl.String, "codes_in_range": pl.Boolean},
    )


def sid_map_facts(value: Any, *, item_ids: Iterable[str] | pl.Series, codebooks: Any) -> Frames:
    """The semantic IDs of a day's catalog.

    Args:
        value: `.frame` of `SemanticIdMap`.
        item_ids: that day's catalog.
        codebooks: the pinned ones: `.codebooks`, `.item_ids`, `.codes`, `.prefix_length`.
    """
    num_levels, size = codebooks.codebooks.shape[:2]
    length = codebooks.prefix_length
    refit = pl.DataFrame(
        {
            c.ITEM_ID: pl.Series(codebooks.item_ids, dtype=pl.String),
            "pinned": pl.Series(np.array(codebooks.codes, dtype=np.int32)).cast(pl.List(pl.Int32)),
        }
    )
    codes = pl.col(c.CODES)
    valid = codes.list.eval((pl.element() >= 0) & (pl.element() < size)).list.all()
    rows = (
        value.frame.join(refit, on=c.ITEM_ID, how="left", maintain_order="left")
        .with_columns(
            known(c.ITEM_ID, item_ids, "item_known"),
            codes.list.len().cast(pl.Int64).fill_null(0).alias("num_codes"),
            true((codes.list.len() == num_levels) & valid, "codes_in_range"),
            true(pl.col(c.PREFIX) == codes.list.head(length), "prefix_leads_codes"),
            true(pl.col("pinned").is_null() | (pl.col("pinned") == codes), "codes_are_pinned"),
            true((pl.col(c.CODE_SOURCE) == "refit") == pl.col("pinned").is_not_null(), "source_is_right"),
        )
        .drop("pinned")
    )
    num_items = value.frame.height
    shared = value.frame.group_by(c.CODES).len().filter(pl.col("len") > 1)["len"].sum()
    groups = value.frame.group_by(c.PREFIX).len()["len"]
    health = figures(
        num_items=num_items,
        num_missing=num_missing(item_ids, value.frame[c.ITEM_ID]),
        shared_share=float(shared / max(num_items, 1)),
        largest_group_share=float((groups.max() or 0) / max(num_items, 1)),
    )
    return {"semantic_id_map": rows, "health": health}


# ---------------------------------------------------------------------------------------- checkpoints
def checkpoint_facts(
    tensors: Mapping[str, np.ndarray],
    *,
    base_compatible: bool,
    beams_valid: float,
    probe_loss: float,
    base_loss: float,
) -> pl.DataFrame:
    """A checkpoint as one row of figures.

    Args:
        tensors: its weights by name.
        base_compatible: its compatibility digest is that of what it was trained on (base, codebooks, encoder).
        beams_valid: share of the probe set's beams that name existing prefixes.
        probe_loss: its loss on the probe set.
        base_loss: the loss there of what it must beat: the untrained model for `sigma_base`, the base for a LoRA.
    """
    bad = sum(int((~np.isfinite(array)).sum()) for array in tensors.values())
    moved = sum(bool(np.any(array)) for array in tensors.values())
    return figures(
        num_tensors=len(tensors),
        num_parameters=sum(int(array.size) for array in tensors.values()),
        num_not_finite=bad,
        is_all_zero=moved == 0,
        base_compatible=base_compatible,
        probe_beams_valid=float(beams_valid),
        probe_loss_ratio=_ratio(probe_loss, base_loss),
    )


def base_facts(value: Any, **probe: Any) -> Frames:
    """`sigma_base`: `value` is its tensors by name, or has them as `.tensors`; the rest as in `checkpoint_facts`."""
    return {"sigma_base": checkpoint_facts(_tensors(value), **probe)}


def lora_facts(value: Any, **probe: Any) -> Frames:
    """`lora_checkpoint`: adapter and heads of the day; inputs as in `checkpoint_facts`."""
    return {"lora_checkpoint": checkpoint_facts(_tensors(value), **probe)}


def _tensors(value: Any) -> Mapping[str, np.ndarray]:
    tensors: Mapping[str, np.ndarray] = value if isinstance(value, Mapping) else value.tensors
    return tensors


def _ratio(after: float, before: float) -> float:
    """Quotient of the losses; 1e9 where it means nothing (GX would skip NaN, and the check would pass)."""
    ratio = after / before if before > 0 else np.inf
    return float(ratio) if np.isfinite(ratio) else 1e9


# ------------------------------------------------------------------------------------------ item index
def item_index_facts(value: Any, *, item_ids: Iterable[str] | pl.Series) -> Frames:
    """The item index: a row an item, and its layout.

    Args:
        value: `.item_ids` (row order), `.vectors` [N, d], `.prefixes` int [N, Lp], `.offsets` int [groups + 1].
        item_ids: that day's catalog.
    """
    prefixes, offsets = np.asarray(value.prefixes), np.asarray(value.offsets)
    rows = vector_facts(value.item_ids, value.vectors).with_columns(known(c.ITEM_ID, item_ids, "item_known"))
    # A group is a run of equal prefixes; offsets must stand exactly where a run begins, and at the end.
    begins = np.flatnonzero(np.any(prefixes[1:] != prefixes[:-1], axis=1)) + 1
    runs = np.concatenate([[0], begins, [len(prefixes)]]) if len(prefixes) else np.zeros(1, dtype=np.int64)
    order = np.lexsort(prefixes.T[::-1]) if len(prefixes) else np.zeros(0, dtype=np.int64)
    layout = figures(
        num_items=len(prefixes),
        num_missing=num_missing(item_ids, value.item_ids),
        rows_are_sorted=bool(np.array_equal(prefixes[order], prefixes)),
        offsets_are_right=bool(np.array_equal(np.unique(offsets), runs)),
    )
    return {"item_index": rows, "layout": layout}
