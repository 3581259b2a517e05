"""What the evaluation protocol is given for one day: test examples, SIGMA as a ranker, and its opponents with their knowledge.

Puts core functions together; the protocol, the metrics and the opponents themselves are in `sigma_core/evaluation/`.
Source: tasks.md, "The tasks and how they are judged".
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sigma_core.config import SigmaConfig
from sigma_core.data.calendar import load_themes
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.offers import Offers
from sigma_core.data.splits import history_until
from sigma_core.data.users import UserProfiles
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.instruction.examples import ExampleSet, build_examples
from sigma_core.serving.item_index import ItemIndex
from sigma_core.tracking import Progress
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase

if TYPE_CHECKING:
    from sigma_core.evaluation.baselines import Baseline
    from sigma_core.evaluation.report import EvalReport
    from sigma_core.evaluation.user_scores import PurchaseHistory, UserScores

Encode = Callable[[Sequence[str]], np.ndarray]


def examples_of_day(
    day: date,
    events: pl.DataFrame,
    catalog: ItemCatalog,
    profiles: UserProfiles,
    item_types: pl.DataFrame,
    config: SigmaConfig,
    offers: Offers | None = None,
) -> ExampleSet:
    """Every user's requests on the day, with all targets of the horizon after it."""
    return build_examples(
        day,
        events,
        catalog,
        profiles,
        config,
        split="test",
        max_requests=config.evaluation.max_requests_per_task,
        item_types=item_types,
        offers=offers,
    )


def judge_day(
    day: date,
    events: pl.DataFrame,
    catalog: ItemCatalog,
    examples: ExampleSet,
    model: tuple[SigmaBase, LoraCheckpoint, ItemIndex, GroundedEncoder],
    config: SigmaConfig,
    progress: Progress,
    offers: Offers | None = None,
    data: Mapping[str, str] | None = None,
) -> "EvalReport":
    """The report of the day: SIGMA beside every opponent on the same requests. `data`: digests of the inputs, to be shown."""
    from sigma_core.evaluation.protocol import EvalDay, evaluate_day
    from sigma_core.serving.ranking import sigma_ranker

    base, checkpoint, index, encoder = model
    history = history_until(events, day)
    sigma = sigma_ranker(base, checkpoint, index, catalog, examples.contexts, encoder, config, progress)
    opponents = opponents_of(day, history, catalog, config, offers)
    judged = EvalDay(day, catalog.frame, history, examples, data or {})
    return evaluate_day(judged, sigma, opponents, config, progress)


def opponents_of(
    day: date,
    history: pl.DataFrame,
    catalog: ItemCatalog,
    config: SigmaConfig,
    offers: Offers | None = None,
    sequence: Callable[["PurchaseHistory"], "UserScores"] | None = None,
) -> dict[str, "Baseline"]:
    """All opponents, with a general text encoder; a sequence model if one is given."""
    from sigma_core.evaluation.baselines import build_baselines

    return build_baselines(
        catalog.frame,
        history,
        day,
        themes=load_themes(),
        encode=general_encoder(config),
        offered=offers.known_on(day).items if offers else None,
        sequence=sequence,
    )


def general_encoder(config: SigmaConfig) -> Encode:
    """The grounding backbone before any training: what anyone who downloads it has."""
    from sigma_core.grounding.train import untrained_encoder

    return untrained_encoder(config.grounding).encode
