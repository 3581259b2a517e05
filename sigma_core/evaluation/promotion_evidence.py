"""What the promotion rule is told: an adapter's fitness, the guardrails of its lists, and its losses against another's.

Measures and decides nothing (`promotion.py`). Source: our choice; the probe is training's (`training/probe.py`), recall and
the paired bootstrap over households are the report's.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactError, digest_bytes
from sigma_core.evaluation.promotion import Fitness, Guardrails, TaskLoss
from sigma_core.instruction.tasks import TASKS, render

if TYPE_CHECKING:
    from sigma_core.config import SigmaConfig
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.evaluation.metrics import Ratio
    from sigma_core.evaluation.protocol import EvalDay
    from sigma_core.evaluation.request_plan import TaskPlan
    from sigma_core.evaluation.requests import IntArray, Ranker
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.instruction.shards import SftShard
    from sigma_core.tokenization.codebooks import Codebooks
    from sigma_core.tokenization.item_features import ItemFeatures
    from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase

LIST_LENGTH: Final = 20
GUARDRAIL_TASKS: Final = ("just_for_you", "discover")
TIMED_ANSWERS: Final = 9
METRIC: Final = "recall@20"


def adapter_fitness(
    base: "SigmaBase",
    checkpoint: "LoraCheckpoint",
    shards: Sequence["SftShard"],
    features: "ItemFeatures",
    codebooks: "Codebooks",
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
) -> Fitness:
    """Run the probe of training on the adapter as it was written. Never raises for a bad adapter.

    The loss of the base alone is what training measured before its first step, on the same households and requests.
    """
    import torch

    from sigma_core.training.batches import build_training_set
    from sigma_core.training.checkpoint import compatibility
    from sigma_core.training.probe import beams_valid, probe_loss, split_probe
    from sigma_core.training.sft import make_trainer

    broken = sum(int((~np.isfinite(array)).sum()) for array in checkpoint.tensors.values())
    if broken:
        return Fitness(num_not_finite=broken)
    try:
        checkpoint.check_bound(compatibility(codebooks, encoder), "this month")
        model = checkpoint.build(base)
    except ArtifactError as error:
        return Fitness(misfit=str(error))
    torch.set_num_threads(config.runtime.threads)
    data, probe = split_probe(build_training_set(shards, features.item_ids, features.folded))
    trainer = make_trainer(model, features, data, probe, encoder, config)
    try:
        loss = probe_loss(trainer, probe, features.prefix, config.runtime.seed)
        valid = beams_valid(trainer, probe, features.prefix, config.runtime.seed)
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # of the machine, not of the adapter
        raise
    except (RuntimeError, ValueError, IndexError) as error:  # weights that are finite and make no sense
        return Fitness(misfit=f"its probe crashed: {type(error).__name__}: {error}")
    return Fitness(0, "", valid, loss, checkpoint.figures.get("base_loss"))


def guardrails(
    base: "SigmaBase",
    checkpoint: "LoraCheckpoint",
    features: "ItemFeatures",
    catalog: "ItemCatalog",
    contexts: pl.DataFrame,
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
) -> Guardrails | None:
    """Coverage, share of new items and latency on the lists of some of the `contexts`; None when it could not answer.

    Args:
        base, checkpoint: the model, which must fit (`adapter_fitness`).
        features: of the catalog's items.
        catalog: any day's; new are the items launched lately by that day.
        contexts: of `build_contexts`; `promotion.guardrail_households` of them are asked, by hash.
        encoder: of the month.
        config: all settings.
    """
    from sigma_core.generation.recommender import Ask
    from sigma_core.instruction.collate import Request
    from sigma_core.serving.engine import Engine
    from sigma_core.serving.item_index import build_item_index

    index = build_item_index(base, checkpoint, features)
    engine = Engine(base, checkpoint, index, catalog, encoder, config)
    users = engine.contexts(_some(contexts, config.promotion.guardrail_households))
    asks = [Ask(Request(render(TASKS[task], 0, {}))) for task in GUARDRAIL_TASKS]
    lists = engine.rank(users, [asks] * len(users), LIST_LENGTH)
    rows = np.array([found.row for ranked in lists for found in ranked], dtype=np.int64)
    if not rows.size:
        return None
    is_new = dict(catalog.frame.select(c.ITEM_ID, c.IS_NEW).iter_rows())
    new = np.array([is_new[item] for item in index.item_ids])
    most = min(len(lists) * LIST_LENGTH, len(index.item_ids))
    times = []
    for user in users[:TIMED_ANSWERS]:
        started = time.process_time()  # not the clock: a busy machine says nothing of the model
        engine.rank([user], [asks[:1]], LIST_LENGTH)
        times.append(time.process_time() - started)
    return Guardrails(
        coverage=len(np.unique(rows)) / most,
        cold_share=float(new[rows].mean()),
        latency_ms=float(np.median(times)) * 1000,
    )


def task_losses(
    day: "EvalDay", challenger: "Ranker", incumbent: "Ranker", config: "SigmaConfig"
) -> dict[str, TaskLoss]:
    """recall@20 of both on the same requests of every task that has targets, and the upper bound of the loss.

    Args:
        day: of the challenger; its examples hold what came after it.
        challenger, incumbent: asked each request once; neither may have seen anything later than the day.
        config: `promotion` says how many households and resamples, and how sure.
    """
    from sigma_core.evaluation.baselines import HALF_LIFE_DAYS
    from sigma_core.evaluation.request_plan import choose_users, plan_requests
    from sigma_core.evaluation.significance import paired_differences
    from sigma_core.evaluation.user_scores import PurchaseHistory

    settings, seed = config.promotion, config.runtime.seed
    examples = day.examples.examples
    users = choose_users(examples[c.USER_ID].to_list(), settings.sample_households, seed)
    history = PurchaseHistory(day.history, day.catalog[c.ITEM_ID], day.as_of, HALF_LIFE_DAYS)
    plan = plan_requests(examples, day.catalog, history, users=users, lift_users=(), seed=seed)
    answers = [challenger(plan.asked), incumbent(plan.asked)]
    losses = {}
    for name, task in plan.tasks.items():
        if not task.requests:
            continue
        mine, theirs = (_recall(task, lists[task.asked]) for lists in answers)
        (difference,) = paired_differences(
            [mine],
            [theirs],
            samples=settings.bootstrap_samples,
            seed=seed,
            level=2 * settings.confidence - 1,  # one-sided
        )
        losses[name] = TaskLoss(
            num_targets=len(task.targets.rows),
            num_households=len(task.user_ids),
            challenger=mine.value() or 0.0,
            incumbent=theirs.value() or 0.0,
            upper=-difference.low,
        )
    return losses


def _recall(task: "TaskPlan", lists: "IntArray") -> "Ratio":
    """Hits and targets of each household of the task."""
    from sigma_core.evaluation.metrics import Ratio, target_ranks

    hit = target_ranks(lists[:, :LIST_LENGTH], task.targets) < min(LIST_LENGTH, lists.shape[1])
    of_target, size = task.users[task.targets.requests()], len(task.user_ids)
    found = np.bincount(of_target, weights=hit.astype(np.float64), minlength=size).astype(np.float64)
    return Ratio(found, np.bincount(of_target, minlength=size).astype(np.float64))


def _some(contexts: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many of the contexts, by hash of the user."""
    order = sorted(range(contexts.height), key=lambda row: digest_bytes(contexts[c.USER_ID][row].encode()))
    return contexts[order[:most]]
