"""What an artifact's contract must know: the frames that are validated, computed from the artifact and its inputs.

`facts` finds the function of an asset; this module has those of the tables, `facts_shards.py` those of training shards,
`facts_models.py` those of vectors, codebooks and checkpoints. Artifacts are duck-typed (`.frame`, `.item_ids`, `.vectors`, ...), so a test can hand over anything shaped alike.
Leakage, referential integrity and coverage are decided here, in polars; the verdict is the contract's.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import polars as pl

from sigma_assets.checks import facts_models as models
from sigma_assets.checks.facts_base import (
    Frames,
    figures,
    id_series,
    known,
    num_missing,
    true,
)
from sigma_assets.checks.facts_promotion import promoted_facts
from sigma_assets.checks.facts_shards import shard_facts
from sigma_core import columns as c
from sigma_core.benchmarks.arms import chosen_arms
from sigma_core.instruction.tasks import TASKS

MAIN_METRIC = "recall@20"
REQUIRED_MODELS = ("sigma", "popularity", "personal_frequency", "personal_decayed", "item_knn")
TASK_NAMES = tuple(TASKS)
SHARE_METRICS = (
    "recall@",
    "macro_recall@",
    "any_hit@",
    "group_recall@",
    "ndcg@",
    "coverage@",
)  # between 0 and 1


def facts(asset_name: str, value: Any, **inputs: Any) -> Frames:
    """Table name -> frame to validate against the asset's contract.

    Args:
        asset_name: name of the asset, and of its contract.
        value: the artifact.
        inputs: what the asset's function below asks for (catalog ids, dates, figures of a probe).

    Raises:
        ValueError: an asset without facts.
        TypeError: an input is missing or unknown.
    """
    if asset_name not in FACTS:
        raise ValueError(f"no facts for asset {asset_name!r}; there are {', '.join(sorted(FACTS))}.")
    return FACTS[asset_name](value, **inputs)


# ------------------------------------------------------------------------------------------- sources
def event_facts(
    value: Any,
    *,
    days: Iterable[date],
    known_items: Iterable[str] | pl.Series,
    num_source_rows: int | None = None,
) -> Frames:
    """Events of one or many days, and a row a day with its counts.

    Args:
        value: `.frame` and `.quarantine` of `InteractionEvents`.
        days: the partitions that the value stands for; a row elsewhere is in no partition.
        known_items: ids of the product master.
        num_source_rows: rows of the whole source, by which those without a usable time are measured; None: the value's own.
    """
    wanted = sorted(set(days))
    calendar = pl.DataFrame({c.EVENT_DATE: wanted}, schema={c.EVENT_DATE: pl.Date})
    rows = value.frame.with_columns(
        known(c.ITEM_ID, known_items, "item_known"),
        true(pl.col(c.EVENT_TIME).dt.date() == pl.col(c.EVENT_DATE), "date_is_of_time"),
        true(pl.col(c.EVENT_DATE).is_in(calendar[c.EVENT_DATE].implode()), "in_partition"),
    )
    counts = _day_counts(calendar, value.frame, value.quarantine, num_source_rows)
    return {"interaction_events": rows, "day": counts}


def _day_counts(
    calendar: pl.DataFrame, accepted: pl.DataFrame, refused: pl.DataFrame | None, num_source_rows: int | None
) -> pl.DataFrame:
    """Rows accepted and refused by day; refused ones of no day of the data lie with the first day, and have a share of their own."""

    def per_day(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        return frame.group_by(c.EVENT_DATE).agg(pl.len().cast(pl.Int64).alias(name))

    if refused is None:
        refused = pl.DataFrame(schema={c.EVENT_DATE: pl.Date})
    of_a_day = pl.col(c.EVENT_DATE).is_in(calendar[c.EVENT_DATE].implode()).fill_null(False)
    undated = refused.filter(~of_a_day).height
    source_rows = num_source_rows or accepted.height + refused.height
    total = pl.col("num_accepted") + pl.col("num_refused")
    is_first = pl.int_range(pl.len()) == 0
    return (
        calendar.join(per_day(accepted, "num_accepted"), on=c.EVENT_DATE, how="left")
        .join(per_day(refused.filter(of_a_day), "num_refused"), on=c.EVENT_DATE, how="left")
        .with_columns(pl.col("num_accepted", "num_refused").fill_null(0))
        .with_columns(
            pl.when(total > 0).then(pl.col("num_refused") / total).otherwise(0.0).alias("refused_share")
        )
        .sort(c.EVENT_DATE)
        .with_columns(pl.when(is_first).then(undated).otherwise(0).cast(pl.Int64).alias("num_undated"))
        .with_columns(
            pl.col("num_refused") + pl.col("num_undated"),
            (pl.col("num_undated") / max(source_rows, 1)).alias("undated_share"),
        )
    )


def history_facts(value: Any, *, first: date, last: date) -> Frames:
    """Events of a month (`first` to `last`, both included), and one row of figures."""
    frame = value.frame.with_columns(
        true(pl.col(c.EVENT_DATE).is_between(first, last), "in_partition"),
        pl.struct(c.USER_ID, c.ITEM_ID, c.SOURCE_ROW).is_duplicated().alias("is_repeated"),
    )
    num_days = value.frame[c.EVENT_DATE].n_unique()
    length = (last - first).days + 1
    return {
        "interaction_history": frame,
        "month": figures(num_days=num_days, num_empty_days=length - num_days),
    }


def catalog_facts(
    value: Any, *, day: date, known_items: Iterable[str] | pl.Series, listed: Iterable[str] = ()
) -> Frames:
    """Items of the catalog of `day`; `known_items` is the product master, `listed` what updates brought into it."""
    launched = pl.col(c.LAUNCHED_ON)
    by_update = pl.Series(sorted(listed), dtype=pl.String)
    frame = value.frame.with_columns(
        known(c.ITEM_ID, known_items, "item_known"),
        (launched.is_null() | (launched <= day)).alias("launched_by_day"),
        (~pl.col(c.IS_NEW) | launched.is_not_null()).fill_null(False).alias("new_has_launch"),
        true(
            (pl.col(c.NUM_BUYERS_56D) >= 1) | pl.col(c.ITEM_ID).is_in(by_update.implode()), "sold_or_listed"
        ),
    )
    return {"item_catalog": frame}


def profile_facts(value: Any, *, day: date) -> Frames:
    """Users seen up to `day`."""
    return {"user_profiles": value.frame.with_columns(true(pl.col(c.FIRST_SEEN) <= day, "seen_by_day"))}


# ----------------------------------------------------------------------------------------- grounding
def pair_facts(value: Any, *, item_ids: Iterable[str] | pl.Series) -> Frames:
    """Relevance pairs; `item_ids` is the catalog of the day before the refit."""
    key = (c.VIEW, c.ANCHOR_TEXT, c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID)
    anchor = pl.col(c.ANCHOR_ITEM_ID)
    frame = value.frame.with_columns(
        known(c.POSITIVE_ITEM_ID, item_ids, "positive_known"),
        (anchor.is_null() | anchor.is_in(id_series(item_ids).implode())).alias("anchor_known"),
        (anchor == pl.col(c.POSITIVE_ITEM_ID)).fill_null(False).alias("is_self_pair"),
        pl.struct(key).is_duplicated().alias("is_repeated"),
        pl.col(c.WEIGHT).is_finite().fill_null(False).alias("weight_is_finite"),
    )
    return {"relevance_pairs": frame}


# --------------------------------------------------------------------------------- serving, evaluation
def u2i_facts(
    value: Any, *, item_ids: Iterable[str] | pl.Series, user_ids: Iterable[str] | pl.Series
) -> Frames:
    """Precomputed lists; `item_ids` is the item index's, `user_ids` the users that should have a list."""
    frame = value.frame
    if c.TASK not in frame.columns:
        frame = frame.with_columns(pl.lit("just_for_you").alias(c.TASK))
    listed = [c.USER_ID, c.TASK]
    ordered = frame.sort([*listed, c.RANK])
    before = pl.col(c.SCORE).shift(1).over(listed)
    rows = ordered.with_columns(
        known(c.ITEM_ID, item_ids, "item_known"),
        pl.col(c.SCORE).is_finite().fill_null(False).alias("score_is_finite"),
        (before.is_null() | (pl.col(c.SCORE) <= before)).alias("score_falls"),
        (pl.col(c.RANK) == pl.int_range(1, pl.len() + 1).over(listed)).fill_null(False).alias("rank_is_next"),
    )
    users = id_series(user_ids)
    missing = num_missing(users, frame[c.USER_ID])
    coverage = figures(
        num_users=len(users), num_without_list=missing, share_without=missing / max(len(users), 1)
    )
    return {"user_to_item_index": rows, "coverage": coverage}


def report_facts(value: Any, *, required_models: Sequence[str] = REQUIRED_MODELS) -> Frames:
    """The report as one row, and a row a task. `value` is the report's JSON, or has it as `.content`."""
    content: Mapping[str, Any] = value if isinstance(value, Mapping) else value.content
    tasks = content.get("tasks", {})
    rows = [_task_row(name, tasks.get(name) or {}, required_models) for name in sorted({*TASK_NAMES, *tasks})]
    whole = figures(
        num_items=int(content.get("catalog", {}).get("items") or 0),
        num_targets=int(content.get("catalog", {}).get("targets") or 0),
        num_missing_tasks=sum(name not in tasks for name in TASK_NAMES),
        num_missing_baselines=sum(int(row["num_missing_models"]) for row in rows),
        num_nan=_count_nan(content),
    )
    return {"report": whole, "tasks": pl.DataFrame(rows)}


def _task_row(name: str, task: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    scored = task.get("models") or {}
    numbers = [
        x
        for scores in scored.values()
        for metric, x in (scores or {}).items()
        if metric.startswith(SHARE_METRICS) and isinstance(x, int | float)
    ]
    inside = [x for x in numbers if not math.isnan(x)]
    num_targets = int(task.get("num_targets") or 0)
    return {
        c.TASK: name,
        "num_targets": num_targets,
        "underpowered": bool(task.get("underpowered", True)),
        # Nothing to rank, nothing to score: a task without a target on this day needs no model.
        "num_missing_models": sum(model not in scored for model in required) if num_targets else 0,
        "lowest_metric": float(min(inside, default=0.0)),
        "highest_metric": float(max(inside, default=0.0)),
    }


def ablation_facts(value: Mapping[str, Any]) -> Frames:
    """The report of an ablation as one row, and a row for each arm and task. `value` is the report's JSON."""
    asked = [arm.name for arm in chosen_arms(value["settings"]["arms"])]
    rows = [
        {c.TASK: task, "arm": arm, **{key: metrics[MAIN_METRIC][key] for key in ("mean", "low", "high")}}
        for arm, tasks in value["arms"].items()
        for task, metrics in tasks.items()
    ]
    whole = figures(
        num_targets=sum(int(task["targets"]) for task in value["tasks"].values()),
        num_seeds=len(value["seeds"]),
        num_missing_arms=sum(arm not in value["arms"] and arm not in value["skipped"] for arm in asked),
        num_nan=_count_nan(value),
    )
    kinds = {c.TASK: pl.String, "arm": pl.String, "mean": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return {"report": whole, "arms": pl.DataFrame(rows, schema=kinds)}


def _count_nan(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_count_nan(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(_count_nan(part) for part in value)
    return int(isinstance(value, float) and not math.isfinite(value))


FACTS: dict[str, Callable[..., Frames]] = {
    "interaction_events": event_facts,
    "interaction_history": history_facts,
    "item_catalog": catalog_facts,
    "user_profiles": profile_facts,
    "relevance_pairs": pair_facts,
    "item_id_embeddings": models.id_embedding_facts,
    "grounded_encoder": models.encoder_facts,
    "refit_item_embeddings": models.refit_embedding_facts,
    "item_embeddings": models.embedding_facts,
    "codebooks": models.codebook_facts,
    "semantic_id_map": models.sid_map_facts,
    "sft_shards": shard_facts,
    "sigma_base": models.base_facts,
    "lora_checkpoint": models.lora_facts,
    "promoted_model": promoted_facts,
    "item_index": models.item_index_facts,
    "user_to_item_index": u2i_facts,
    "eval_report": report_facts,
    "ablation_report": ablation_facts,
}
