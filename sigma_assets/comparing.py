"""Two models on the same requests of a past day: what the gates of adapters and of refits are told.

Puts core functions together; recall and bounds are `sigma_core/evaluation/promotion_evidence.py`, the rules
`sigma_core/evaluation/promotion.py`. Our choice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from sigma_assets.intake import intake_of, item_types_of
from sigma_assets.io_manager import load
from sigma_assets.judging import examples_of_day
from sigma_assets.resources import SigmaResource
from sigma_assets.stages import Read
from sigma_assets.window import Window, frames_of, readable
from sigma_assets.world import World
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.splits import history_until
from sigma_core.data.users import UserProfiles
from sigma_core.evaluation.promotion import TaskLoss
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.tokenization.item_features import ItemFeatures
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase


@dataclass(frozen=True)
class Refit:
    """What the month made and the gate needs."""

    base: SigmaBase
    codebooks: Codebooks
    encoder: GroundedEncoder
    id_embeddings: ItemIdEmbeddings


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: a refit, an adapter on it, and the features of the items it ranks under that refit."""

    refit: Refit
    checkpoint: LoraCheckpoint
    features: ItemFeatures


def losses_between(
    challenger: Contender,
    incumbent: Contender,
    sigma: SigmaResource,
    context: dg.AssetExecutionContext,
    judged: tuple[date, ItemCatalog, UserProfiles, pl.DataFrame],
    horizon: int | None = None,
) -> dict[str, TaskLoss]:
    """Both on the same requests of a day.

    Args:
        challenger, incumbent: made of nothing later than the day.
        sigma, context: the root and the running asset.
        judged: the day, its catalog and profiles, and all events up to the last day judged on.
        horizon: how many days after it; None: as configured.
    """
    from sigma_core.evaluation.promotion_evidence import task_losses
    from sigma_core.evaluation.protocol import EvalDay
    from sigma_core.serving.item_index import build_item_index
    from sigma_core.serving.ranking import sigma_ranker

    day, catalog, profiles, events = judged
    most = {"max_requests_per_task": sigma.config.promotion.max_requests_per_task}
    sections = {
        "evaluation": sigma.config.evaluation.model_copy(update=most),
        "data": sigma.config.data.model_copy(update={"horizon_days": horizon} if horizon else {}),
    }
    config = sigma.config.model_copy(update=sections)
    offers, types = intake_of(sigma.world).offers.known_on(day), item_types_of(sigma.world, day)
    examples = examples_of_day(day, events, catalog, profiles, types, config, offers)

    def ranker(side: Contender) -> Any:
        base, encoder = side.refit.base, side.refit.encoder
        index = build_item_index(base, side.checkpoint, side.features)
        rest = (catalog, examples.contexts, encoder, config, sigma.progress(context))
        return sigma_ranker(base, side.checkpoint, index, *rest)

    evaluated = EvalDay(day, catalog.frame, history_until(events, day), examples)
    return task_losses(evaluated, ranker(challenger), ranker(incumbent), config)


def events_until(world: World, day: str) -> Any:
    """All events up to a day, from monthly rollups and single days."""
    return frames_of(*_windows(world, day))


def _windows(world: World, day: str) -> Iterator[Window]:
    for read in (Read("interaction_history", "months_before"), Read("interaction_events", "recent_days")):
        present, missing = readable(world, read, day)
        yield Window({key: load(world, read.asset, key) for key in present}, missing)
