"""Facts of training shards: what shows that no lesson knows its future, and that every answer can be given.

Compares lists with the catalog and with the purchases of the outcome window, in polars, over whole columns. Source: tasks.md
("nothing computed for D may use anything after D"); the checks are our choice.
"""

import json
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import polars as pl

from sigma_assets.checks.facts_base import Frames, known, num_repeats, num_unknown, true
from sigma_core import columns as c


def shard_facts(
    value: Any,
    *,
    day: date,
    horizon: int,
    item_ids: Iterable[str] | pl.Series,
    events: pl.DataFrame | None = None,
) -> Frames:
    """Contexts, examples and activity of `sft_shards[day]`.

    Args:
        value: `.contexts`, `.examples` and `.activity` of `SftShard`.
        day: the partition; the cut is `horizon` days before it.
        horizon: days of the outcome window.
        item_ids: catalog of the cut.
        events: accepted events of the outcome window at least; with them every target is looked up as a purchase within
            it, without them only the dates are compared.
    """
    cut = day - timedelta(days=horizon)
    contexts = value.contexts.with_columns(
        true(pl.col(c.CUT_DATE) == cut, "cut_is_of_partition"),
        num_unknown(c.RECENT_ITEMS, item_ids, "num_unknown_recent"),
        num_unknown(c.FAVORITE_ITEMS, item_ids, "num_unknown_favorites"),
        num_repeats(c.RECENT_ITEMS, "num_repeated_recent"),
        pl.min_horizontal(
            pl.col(c.RECENT_AGES).list.min().fill_null(0), pl.col(c.FAVORITE_AGES).list.min().fill_null(0)
        )
        .cast(pl.Int64)
        .alias("youngest_age"),
        true(_aligned(), "lists_are_aligned"),
    )
    examples = value.examples.with_columns(
        true(pl.col(c.CUT_DATE) == cut, "cut_is_of_partition"),
        true((pl.col(c.TARGET_END) > pl.col(c.CUT_DATE)) & (pl.col(c.TARGET_END) <= day), "target_after_cut"),
        known(c.USER_ID, value.contexts[c.USER_ID], "has_context"),
        pl.col(c.TARGETS).list.len().cast(pl.Int64).fill_null(0).alias("num_targets"),
        num_unknown(c.TARGETS, item_ids, "num_unknown_targets"),
        num_repeats(c.TARGETS, "num_repeated_targets"),
        pl.col(c.SLOTS)
        .map_elements(_is_json_object, return_dtype=pl.Boolean, skip_nulls=False)
        .alias("slots_are_json"),
    )
    activity = value.activity.with_columns(
        known(c.ITEM_ID, item_ids, "item_known"),
        true(pl.col(c.NUM_EVENTS_14D) <= pl.col(c.NUM_EVENTS_56D), "windows_nest"),
    )
    return {
        "contexts": contexts,
        "examples": _targets_outside(examples, events),
        "activity": activity,
    }


def _aligned() -> pl.Expr:
    recent = [c.RECENT_AGES, c.RECENT_COUNTS, c.RECENT_DECAYED, c.RECENT_DECAYED_FAST]
    favorite = [c.FAVORITE_AGES, c.FAVORITE_COUNTS, c.FAVORITE_DECAYED, c.FAVORITE_DECAYED_FAST]
    pairs = [(c.RECENT_ITEMS, name) for name in recent] + [(c.FAVORITE_ITEMS, name) for name in favorite]
    return pl.all_horizontal(pl.col(items).list.len() == pl.col(name).list.len() for items, name in pairs)


def _targets_outside(examples: pl.DataFrame, events: pl.DataFrame | None) -> pl.DataFrame:
    """Adds num_targets_outside: targets the user did not take between the cut and the end of the window."""
    rows = examples.with_row_index("row")
    if events is None:
        return examples.with_columns(
            pl.when("target_after_cut")
            .then(0)
            .otherwise("num_targets")
            .cast(pl.Int64)
            .alias("num_targets_outside")
        )
    wanted = rows.select(
        "row", c.USER_ID, c.CUT_DATE, c.TARGET_END, pl.col(c.TARGETS).alias(c.ITEM_ID)
    ).explode(c.ITEM_ID)
    in_any_window = (pl.col(c.EVENT_DATE) > examples[c.CUT_DATE].min()) & (
        pl.col(c.EVENT_DATE) <= examples[c.TARGET_END].max()
    )
    taken = events.filter(in_any_window).select(c.USER_ID, c.ITEM_ID, c.EVENT_DATE).unique()
    inside = (
        wanted.join(taken, on=[c.USER_ID, c.ITEM_ID])
        .filter((pl.col(c.EVENT_DATE) > pl.col(c.CUT_DATE)) & (pl.col(c.EVENT_DATE) <= pl.col(c.TARGET_END)))
        .group_by("row")
        .agg(pl.col(c.ITEM_ID).n_unique().cast(pl.Int64).alias("num_inside"))
    )
    joined = rows.join(inside, on="row", how="left", maintain_order="left")
    outside = pl.col(c.TARGETS).list.n_unique().cast(pl.Int64).fill_null(0) - pl.col("num_inside").fill_null(
        0
    )
    return joined.with_columns(outside.alias("num_targets_outside")).drop("row", "num_inside")


def _is_json_object(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), dict)
    except json.JSONDecodeError:
        return False
