"""`sigma benchmark scaling`: time and memory of the stages of a day and of the refit at 1x, 3x, 10x users, items and events.

The data of a root's source are multiplied: every copy has its own users and items, so that all counts grow together while what
a user does stays the same. Stages are the library calls the assets make, on the root's own model where one is needed. The
exponent is the slope of log seconds against log size; 1 is linear. Our choice.

Stages around texts and codes are in `scaling_refit.py`, and so is what is not measured and why.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.benchmarks.scaling_refit import (
    NEW_TEXTS,
    NOT_MEASURED,
    TEACHER,
    RefitInputs,
    refit_inputs,
    refit_stages,
)
from sigma_core.benchmarks.timing import Clock, alternate
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.serving.runtime import LoadedRecommender

LINEAR: Final = (
    1.1  # exponents of small runs wander; above this a stage counts as growing faster than its input
)
USERS_AT_A_TIME: Final = 32
NOTES: Final = {
    "item_embeddings": f"new texts only, {NEW_TEXTS} times scale of them; a text known from before is looked up",
    "semantic_id_map": "every item is coded from its vector, as a launch; on a day the refit's items keep theirs",
    "item_index": "over the root's own items, each copied scale times",
    "user_to_item_index": f"{USERS_AT_A_TIME} users times scale, one task; not the users of the multiplied data",
    "one_request": "one user; its size is always 1, what grows is the catalog",
}


@dataclass(frozen=True)
class ScalingSettings:
    """Scales, share of the users at scale 1, days of events before the root's latest day, timed calls a stage."""

    scales: tuple[int, ...] = (1, 3, 10)
    base: float = 0.1
    days: int = 120
    rounds: int = 2
    threads: int = 2
    clock: Clock = "wall"
    seed: int = 17


def run_scaling(root: Path, settings: ScalingSettings, progress: Progress = no_progress) -> dict[str, Any]:
    """`rows`: stage and scale with seconds and memory; `exponents` by stage; `faster_than_linear` names offenders.

    `not_measured` holds a reason for each stage left out, `notes` what a stage's figure is of where the name does not tell.

    Raises:
        RequestError: the root holds no trained day.
    """
    import torch

    from sigma_core.benchmarks.record import answering_digests, source_fingerprint
    from sigma_core.serving.runtime import load_recommender

    loaded = load_recommender(root, device="cpu")  # clocks here know nothing of a GPU's queue
    torch.set_num_threads(settings.threads)  # after loading, which sets the root's own
    refit, not_measured = refit_inputs(root, loaded), dict(NOT_MEASURED)
    raw, products, people = _base(root, loaded.day, settings)
    rows: list[dict[str, Any]] = []
    for number, scale in enumerate(settings.scales):
        progress(number, len(settings.scales), f"{scale}x")
        parts = multiplied(raw, c.USER_ID, scale), multiplied(products, c.ITEM_ID, scale)
        stages = _stages(loaded, refit, *parts, multiplied(people, c.USER_ID, scale), scale, settings.seed)
        for stage, (size, call) in stages.items():
            if stage in not_measured:
                continue
            try:
                timing = alternate({stage: call}, settings.rounds, settings.clock)[stage]
            except ValueError as error:
                if stage != TEACHER:  # the one that a base of few users can be too small for
                    raise
                not_measured[stage] = str(error)
                continue
            rows.append(
                {
                    "stage": stage, "scale": scale, "size": size, "seconds": timing.p50, "added_mib": timing.added_mib,
                    "microseconds_each": 1e6 * timing.p50 / max(1, size),
                }
            )  # fmt: skip
    exponents = {
        stage: exponent(
            [row["scale"] for row in rows if row["stage"] == stage],
            [row["seconds"] for row in rows if row["stage"] == stage],
        )
        for stage in dict.fromkeys(row["stage"] for row in rows)
    }
    return {
        "rows": rows,
        "exponents": exponents,
        "faster_than_linear": sorted(stage for stage, value in exponents.items() if value > LINEAR),
        "not_measured": not_measured,
        "notes": NOTES,
        "data": source_fingerprint(root) | answering_digests(root, loaded.day.isoformat()) | refit.digests,
        "settings": asdict(settings) | {"day": loaded.day.isoformat()},
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds against log size, by least squares."""
    slope, _ = np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.maximum(seconds, 1e-9)), 1)
    return float(slope)


def multiplied(frame: pl.DataFrame, key: str, scale: int) -> pl.DataFrame:
    """`scale` copies of the rows; users and items of copy k end in "~k", so that no two copies share one."""
    names = [name for name in (c.USER_ID, c.ITEM_ID, key) if name in frame.columns]
    copies = [
        frame.with_columns((pl.col(name) + f"~{copy}").alias(name) for name in dict.fromkeys(names))
        for copy in range(scale)
    ]
    out = pl.concat(copies)
    return (
        out.with_columns(pl.int_range(pl.len()).alias(c.SOURCE_ROW)) if c.SOURCE_ROW in out.columns else out
    )


def _base(
    root: Path, day: date, settings: ScalingSettings
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Raw events, products and people of a share of the users, up to one horizon after the day."""
    from sigma_core.root_file import read_binding

    source = read_binding(root).open_source()
    raw = source.events()
    users = raw[c.USER_ID].drop_nulls().unique().sort()
    chosen = users.gather_every(max(1, round(1 / settings.base)))
    first = pl.lit(day - timedelta(days=settings.days))
    inside = (
        pl.col(c.USER_ID).is_in(chosen.implode())
        & (pl.col(c.EVENT_TIME).dt.date() > first)
        & (pl.col(c.EVENT_TIME).dt.date() <= pl.lit(day + timedelta(days=7)))
    )
    raw = raw.filter(inside)
    sold = raw[c.ITEM_ID].unique()
    products = source.products().filter(pl.col(c.ITEM_ID).is_in(sold.implode()))
    return raw, products, source.users().filter(pl.col(c.USER_ID).is_in(chosen.implode()))


def _stages(
    loaded: "LoadedRecommender",
    refit: RefitInputs,
    raw: pl.DataFrame,
    products: pl.DataFrame,
    people: pl.DataFrame,
    scale: int,
    seed: int,
) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Each stage: the number of things it works on, and the call."""
    from sigma_core.data.catalog import CatalogBuilder
    from sigma_core.data.events import clean_events
    from sigma_core.data.users import build_user_profiles
    from sigma_core.instruction.contexts import contexts_of, owned_items
    from sigma_core.instruction.shards import build_shard

    config, day = loaded.engine.config, loaded.day
    events, _ = clean_events(raw, products[c.ITEM_ID])
    start = events[c.EVENT_DATE].min()
    assert isinstance(start, date), "the base holds events"
    catalog = CatalogBuilder(events, products, config.data, start).day(day)
    profiles = build_user_profiles(people, events, day)
    cut = day - timedelta(days=config.data.horizon_days)
    earlier = CatalogBuilder(events.filter(pl.col(c.EVENT_DATE) <= cut), products, config.data, start).day(
        cut
    )

    def contexts() -> Any:
        owned = owned_items(events, catalog, day, None, config.instruction.favorite_half_life_days)
        return contexts_of(owned, owned.users_with_items(), profiles, day, config.instruction)

    return {
        "interaction_events": (raw.height, lambda: clean_events(raw, products[c.ITEM_ID])),
        "item_catalog": (
            events.height, lambda: CatalogBuilder(events, products, config.data, start).day(day)
        ),
        "user_profiles": (events.height, lambda: build_user_profiles(people, events, day)),
        "sft_shards": (events.height, lambda: build_shard(day, events, earlier, profiles, config)),
        "contexts": (profiles.frame.height, contexts),
        **refit_stages(loaded, refit, events, catalog, scale, seed),
        **_model_stages(loaded, scale),
    }  # fmt: skip


def _model_stages(loaded: "LoadedRecommender", scale: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Index and lists over the root's own items, each copied `scale` times under its own prefix."""
    import torch

    from sigma_core.data.item_activity import NUM_ACTIVITY_STATS
    from sigma_core.generation.recommender import Ask, ItemTable, Recommender
    from sigma_core.instruction.collate import Collator, Request
    from sigma_core.instruction.tasks import TASKS, render
    from sigma_core.model.fusion import ItemStreams
    from sigma_core.model.heads import Activity, ItemTensors

    small = loaded.engine.recommender
    items = ItemTensors(*(part.repeat_interleave(scale, dim=0) for part in small.items.tensors))
    activity = small.items.activity
    table = ItemTable(items, Activity(activity.item_UNS.repeat_interleave(scale, dim=1), activity.prefix_UKS))
    assert activity.item_UNS.shape[2] == NUM_ACTIVITY_STATS
    count, shape = len(items.vectors_NE), small.model.shape
    streams = ItemStreams(
        items.text_NT[:, : shape.text_dim],  # match vectors begin with those of meaning
        torch.zeros(count, shape.id_dim),
        torch.zeros(count, dtype=torch.bool),
        torch.zeros(count, shape.image_dim),
        torch.zeros(count, dtype=torch.bool),
    )

    def index() -> Any:
        with torch.inference_mode():
            return small.model.fusion(streams)[torch.argsort(items.prefixes_NP[:, 0], stable=True)]

    collator = Collator(
        small.collator.words,
        items.prefixes_NP.numpy(),
        small.collator.codebook_size,
        small.collator.prompt_favorites,
    )
    recommender = Recommender(
        small.model, table, collator, small.lexical, small.config, small.apf_temperature, small.typical_sigma
    )
    some = loaded.lists.contexts.sort(c.USER_ID).head(USERS_AT_A_TIME)
    users = [u.with_rows(np.arange(count // scale) * scale) for u in loaded.engine.contexts(some)]
    asks = [[Ask(Request(render(TASKS["just_for_you"], 0, {})))] for _ in users]

    def lists() -> Any:
        return [recommender.rank(users, asks, {}, 50) for _ in range(scale)]

    return {
        "item_index": (count, index),
        "user_to_item_index": (len(users) * scale, lists),
        "one_request": (1, lambda: recommender.rank(users[:1], asks[:1], {}, 20)),
    }
