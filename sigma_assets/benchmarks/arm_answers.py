"""Asks an arm the questions of the day: its lists and their probabilities, and the frontier of accuracy and diversity.

Changes words and inputs where the arm says so; the lists are judged elsewhere (`sigma_core/benchmarks/arm_scores.py`).
Source: tasks.md, "Does the instruction do anything?"; paper, APF (a constant sigma, tuned, stands for "without").
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from sigma_assets.benchmarks.arm_training import TrainedArm, shards_of
from sigma_assets.benchmarks.materials import Materials
from sigma_assets.features import catalog_features
from sigma_core import columns as c
from sigma_core.benchmarks.arms import Arm
from sigma_core.config import SigmaConfig
from sigma_core.evaluation.request_plan import NOTHING, PLAIN, unseen_wording
from sigma_core.evaluation.requests import EvalRequest
from sigma_core.generation.explain import with_settings
from sigma_core.instruction.tasks import TASKS, render
from sigma_core.serving.ranking import SigmaRanker
from sigma_core.tracking import Progress

if TYPE_CHECKING:
    from sigma_core.generation.recommender import Recommender

Lists = dict[str, tuple[np.ndarray, np.ndarray]]  # by task: rows [R, 20] and probabilities [R, 20]
TEMPERATURES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the calibrated one
FRONTIER_USERS: Final = 100
_GENERAL: Final = (
    "longtail",
    "discover",
)  # tasks whose wordings name nothing: the wrong wording of another task


def questions_of(arm: Arm, materials: Materials) -> dict[str, list[EvalRequest]]:
    """The requests of each task in the arm's words; a specialist's only task."""
    plans = materials.judge.plan.tasks
    tasks = (arm.task,) if arm.task else tuple(plans)
    return {t: [reworded(r, arm, materials.config.runtime.seed) for r in plans[t].requests] for t in tasks}


def reworded(request: EvalRequest, arm: Arm, seed: int) -> EvalRequest:
    """The request in the arm's words. All but "own" come without the task's history filter: words alone may matter."""
    if arm.words == "own":
        return request
    request = replace(request, exclude=NOTHING)
    if arm.words == "open":
        return request
    if arm.words == "absent":
        return replace(request, instruction="", focus="")
    if arm.words == "unseen":
        wording = unseen_wording(TASKS[request.task], request.user_id, seed)
        return replace(request, instruction=render(request.task, wording, request.slots))
    other = PLAIN if arm.words == "plain" else _GENERAL[request.task == _GENERAL[0]]
    return replace(request, instruction=render(other, 0, {}), focus="")


def contexts_of(arm: Arm, contexts: pl.DataFrame) -> pl.DataFrame:
    """The users' contexts without what the arm leaves out."""
    if arm.without == "profile":
        return contexts.with_columns(pl.lit("").alias(c.PROFILE_TEXT))
    if arm.without == "history":
        lists = [name for name, kind in contexts.schema.items() if isinstance(kind, pl.List)]
        return contexts.with_columns(pl.col(name).list.head(0) for name in lists)
    return contexts


def ranker_of(trained: TrainedArm, arm: Arm, materials: Materials, progress: Progress) -> SigmaRanker:
    """The arm's model as a ranker over the day's catalog."""
    config = asking_config(trained.config, materials.config, arm)
    return SigmaRanker(
        trained.base,
        trained.checkpoint,
        trained.index,
        materials.catalog,
        contexts_of(arm, materials.examples.contexts),
        trained.grounding.encoder,
        config,
        progress,
    )


def asking_config(trained: SigmaConfig, asked: SigmaConfig, arm: Arm) -> SigmaConfig:
    """Settings of the answers: the arm's generation; fewer users at a time where a prefix is long, for memory."""
    update: dict[str, Any] = {}
    if arm.reads and (generation := arm.settings.get("generation")):
        update["generation"] = trained.generation.model_copy(update=generation)
    if not trained.model.item_vectors:
        users = max(1, asked.serving.batch_users // 4)
        update["serving"] = asked.serving.model_copy(update={"batch_users": users})
    return trained.model_copy(update=update)


def answers_of(trained: TrainedArm, arm: Arm, materials: Materials, progress: Progress) -> Lists:
    """The arm's lists for every task."""
    questions = questions_of(arm, materials)
    ranker = ranker_of(trained, arm, materials, progress)
    asked = [request for requests in questions.values() for request in requests]
    recommender = ranker.engine.recommender
    if arm.constant_sigma:
        recommender = constant(recommender, *tuned_constant(trained, materials))
    rows, scores = ranker.variants(asked, [recommender])[0]
    out, start = {}, 0
    for task, requests in questions.items():
        part = slice(start, start + len(requests))
        out[task] = rows[part], scores[part]
        start = part.stop
    return out


def constant(recommender: "Recommender", temperature: float, typical_sigma: float) -> "Recommender":
    """The same model with the typical sigma for every request."""
    other = with_settings(recommender)
    other.config = recommender.config.model_copy(update={"sharpness_range": 1.0})
    other.apf_temperature, other.typical_sigma = temperature, typical_sigma
    return other


def tuned_constant(trained: TrainedArm, materials: Materials) -> tuple[float, float]:
    """Temperature and typical sigma of a constant sharpness, chosen on the validation users as APF's temperature is."""
    from sigma_core.training.batches import build_training_set
    from sigma_core.training.probe import run_probe, split_probe
    from sigma_core.training.sft import make_trainer

    values = trained.config.model_dump()
    values["generation"]["sharpness_range"] = 1.0
    config = SigmaConfig.model_validate(values)
    grounding = trained.grounding
    features = catalog_features(
        materials.last_catalog,
        materials.ids,
        grounding.codebooks,
        grounding.encoder,
        grounding.known,
        materials.images,
    )
    _, shards = shards_of("", materials)
    data, probe_data = split_probe(build_training_set(shards, features.item_ids, features.folded))
    model = trained.checkpoint.build(trained.base)
    trainer = make_trainer(model, features, data, probe_data, grounding.encoder, config)
    found = run_probe(trainer, probe_data, features.prefix, config.runtime.seed)
    return found.typical_sigma * config.model.temperature / found.sharpening, found.typical_sigma


def frontier_lists(
    trained: TrainedArm, arm: Arm, materials: Materials, progress: Progress
) -> tuple[Mapping[str, Sequence[EvalRequest]], dict[tuple[str, float], dict[str, np.ndarray]]]:
    """Questions of the first users, and lists of each task under APF and under a constant sigma, at each temperature."""
    ranker = ranker_of(trained, arm, materials, progress)
    users = set(materials.judge.users[:FRONTIER_USERS])
    questions = {
        task: [r for r in requests if r.user_id in users]
        for task, requests in questions_of(arm, materials).items()
    }
    own = ranker.engine.recommender
    fixed = constant(own, own.apf_temperature, own.typical_sigma)
    variants: dict[tuple[str, float], Any] = {
        (name, t): with_settings(start, temperature=t)
        for name, start in (("apf", own), ("constant", fixed))
        for t in TEMPERATURES
    }
    asked = [request for requests in questions.values() for request in requests]
    ends = np.cumsum([len(requests) for requests in questions.values()])[:-1]
    found = ranker.variants(asked, list(variants.values()))
    lists = {
        key: dict(zip(questions, np.split(rows, ends), strict=True))
        for key, (rows, _) in zip(variants, found, strict=True)
    }
    return questions, lists
