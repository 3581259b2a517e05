"""Trains one arm of the ablation from materials in memory: grounding and codes where the arm needs its own, base and adapter.

What was trained is kept in a store beside the result, so that a killed run goes on and other questions can be asked of a
model later. Names in it hold digests of what a thing was made from and by which code, so nothing stale is found there. All
seeds share a grounding, which is made with `runtime.seed`. Judges nothing. Source: issue 3, "Proof"; tasks.md (specialists train on as many examples of their task as SIGMA
sees of it); our choice elsewhere.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import polars as pl

from sigma_assets.benchmarks.materials import Grounding, Materials
from sigma_assets.features import catalog_features, refit_features
from sigma_assets.known_answers import known_answers
from sigma_assets.stages import versions_of
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore, digest_json
from sigma_core.benchmarks.arms import FULL_ID, WHOLE_CATALOG, Arm
from sigma_core.config import SigmaConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.devices import training_device
from sigma_core.grounding.embed import ItemEmbeddings, embed_items
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.grounding.relevance_pairs import RelevancePairs
from sigma_core.instruction.shards import SftShard
from sigma_core.repeatable import repeatable
from sigma_core.serving.item_index import ItemIndex, build_item_index
from sigma_core.tokenization.codebooks import Codebooks, fit_codebooks
from sigma_core.tracking import NullTracker, Progress
from sigma_core.training.batches import TrainingSet, build_training_set, sample_steps
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase

LORA_SHARE = 0.1  # of the base's steps, for the day's adapter
MIN_STEPS = 4
TIMED_STEPS = 8
COUNTED_STEPS = 40  # of a specialist: how many requests its steps hold


class NothingToTrainError(ValueError):
    """The data have nothing that this arm could be trained on."""


@dataclass(frozen=True)
class TrainedArm:
    """A model with everything that must be beside it to answer."""

    base: SigmaBase
    checkpoint: LoraCheckpoint
    index: ItemIndex
    grounding: Grounding
    config: SigmaConfig


def arm_config(arm: Arm, config: SigmaConfig, seed: int, steps: int) -> SigmaConfig:
    """The settings an arm is trained with: the root's, its own on top, a seed, and as many steps as all arms get."""
    values = config.model_dump()
    values["runtime"]["seed"] = seed
    values["training"] |= {"base_steps": steps, "lora_steps": max(MIN_STEPS, round(steps * LORA_SHARE))}
    for section, changed in arm.settings.items():
        values[section] |= changed
    return SigmaConfig.model_validate(values)


# --------------------------------------------------------------------------------------- grounding
def grounding_of(arm: Arm, materials: Materials, store: ArtifactStore, progress: Progress) -> Grounding:
    """The grounding and codes of an arm; a new one is made once and kept in the store.

    Raises:
        NothingToTrainError: the view that it leaves out has no pairs.
    """
    own = materials.grounding if not arm.grounding else _other_grounding(arm, materials, store, progress)
    return replace(own, codebooks=with_prefix(own.codebooks, own.refit, arm.prefix))


def with_prefix(codebooks: Codebooks, refit: ItemEmbeddings, prefix: int | None) -> Codebooks:
    """The codebooks with another prefix length; no code changes. `WHOLE_CATALOG` gives every item the same one code.

    Raises:
        NothingToTrainError: the codebooks have too few levels.
    """
    if prefix is None:
        return codebooks
    levels, codes, length = codebooks.codebooks, codebooks.codes, prefix
    if prefix == WHOLE_CATALOG:
        levels = refit.vectors.mean(axis=0)[None, None]
        codes = np.zeros((len(codebooks.item_ids), 1), dtype=np.int32)
        length = 1
    elif prefix == FULL_ID:
        length = codebooks.num_levels
    if length > len(levels):
        raise NothingToTrainError(f"prefix length {length}: the codebooks have {len(levels)} levels")
    return Codebooks(
        levels,
        codebooks.item_ids,
        codes,
        prefix_length=length,
        beam=codebooks.beam,
        encoder_digest=codebooks.encoder_digest,
    )


def _other_grounding(arm: Arm, materials: Materials, store: ArtifactStore, progress: Progress) -> Grounding:
    config, name = materials.config, arm.grounding
    encoder = _encoder(arm, materials, store, progress)
    refit = _vectors(f"{name}_refit", materials, materials.refit_catalog, encoder, (), store, progress)
    today = _vectors(f"{name}_day", materials, materials.catalog, encoder, (refit,), store, progress)
    made_from = [refit.digest(), materials.ids.digest(), materials.refit_catalog.digest()]
    key = _keyed(name, ("codebooks",), materials, made_from)
    if not store.exists("codebooks", key):
        progress(0, 1, "codebooks")
        fitted = fit_codebooks(
            refit,
            config.tokenization,
            config.runtime.seed,
            config.runtime.threads,
            id_embeddings=materials.ids,
            categories=materials.refit_catalog.frame.sort(c.ITEM_ID)[c.CATEGORY].to_list(),
        )
        store.write("codebooks", key, fitted)
    return Grounding(encoder, refit, (refit, today), store.read(Codebooks, "codebooks", key))


def _keyed(name: str, stages: tuple[str, ...], materials: Materials, made_from: list[str]) -> str:
    """The name with a digest of the inputs, and of the code and settings that those stages have."""
    return f"{name}-{digest_json([versions_of(stages, materials.config), made_from])[:12]}"


def _encoder(arm: Arm, materials: Materials, store: ArtifactStore, progress: Progress) -> GroundedEncoder:
    from sigma_core.grounding.train import train_grounded_encoder, untrained_encoder

    settings, runtime = materials.config.grounding, materials.config.runtime
    if arm.raw_text:
        return untrained_encoder(settings, materials.refit_catalog.frame[c.TEXT].to_list())
    made_from = [materials.pairs.digest(), materials.ids.digest(), materials.refit_catalog.digest()]
    key = _keyed(arm.grounding, ("grounded_encoder",), materials, made_from)
    if not store.exists("encoder", key):
        pairs = materials.pairs
        if arm.no_view:
            pairs = RelevancePairs(pairs.frame.filter(pl.col(c.VIEW) != arm.no_view))
            if pairs.frame.height in (0, materials.pairs.frame.height):
                raise NothingToTrainError(f"the view {arm.no_view} has no pairs, or is the only one")
        if arm.no_kd:
            settings = settings.model_copy(update={"kd_weight": 0.0})
        answers = known_answers(materials.refit_catalog)
        with repeatable(runtime.deterministic):
            encoder = train_grounded_encoder(
                pairs,
                materials.refit_catalog,
                materials.ids,
                settings,
                runtime.seed,
                None,
                progress,
                answers,
                training_device(runtime),
            )
        store.write("encoder", key, encoder)
    return store.read(GroundedEncoder, "encoder", key)


def _vectors(
    name: str,
    materials: Materials,
    catalog: ItemCatalog,
    encoder: GroundedEncoder,
    known: tuple[ItemEmbeddings, ...],
    store: ArtifactStore,
    progress: Progress,
) -> ItemEmbeddings:
    stages = ("refit_item_embeddings", "item_embeddings")
    key = _keyed(name, stages, materials, [encoder.digest(), catalog.digest()])
    if not store.exists("vectors", key):
        ids, texts = catalog.frame[c.ITEM_ID].to_list(), catalog.frame[c.TEXT].to_list()
        store.write("vectors", key, embed_items(ids, texts, encoder, known, progress)[0])
    return store.read(ItemEmbeddings, "vectors", key)


# ---------------------------------------------------------------------------------------- training
def train_arm(
    arm: Arm, materials: Materials, seed: int, steps: int, store: ArtifactStore, progress: Progress
) -> TrainedArm:
    """The arm's base and adapter after `steps` steps (a specialist: as many as hold its share), and its index of the day.

    Read from the store where an earlier run left them, trained by the same code with the same settings on the same data.

    Raises:
        NothingToTrainError: the data have nothing for this arm.
    """
    from sigma_core.training.lora import train_lora
    from sigma_core.training.sft import train_base

    if arm.no_folds:
        ids = materials.ids
        materials = replace(materials, ids=ItemIdEmbeddings(ids.item_ids, ids.vectors, ids.num_events))
    grounding = grounding_of(arm, materials, store, progress)
    codebooks, encoder = grounding.codebooks, grounding.encoder
    features = refit_features(
        materials.refit_catalog, grounding.refit, materials.ids, codebooks, materials.images
    )
    if arm.task:
        steps = specialist_steps(arm.task, materials, features.prefix, features.item_ids, seed, steps)
    config = arm_config(arm, materials.config, seed, steps)
    training = {name: config.model_dump(mode="json")[name] for name in ("model", "training", "generation")}
    code = versions_of(("sigma_base", "lora_checkpoint"), config)
    made_from = [codebooks.digest(), encoder.digest(), materials.trained_on]
    key = digest_json([training, code, seed, made_from])[:12]
    name = f"{arm.name}-{seed}-{key}"
    base_shards, lora_shards = shards_of(arm.task, materials)
    with repeatable(config.runtime.deterministic):
        if not store.exists("base", name):
            store.write(
                "base",
                name,
                train_base(base_shards, features, codebooks, encoder, config, NullTracker(), progress),
            )
        base = store.read(SigmaBase, "base", name)
        if not store.exists("adapter", name):
            before = catalog_features(
                materials.last_catalog, materials.ids, codebooks, encoder, grounding.known, materials.images
            )
            made = train_lora(base, lora_shards, before, codebooks, encoder, config, NullTracker(), progress)
            store.write("adapter", name, made)
    checkpoint = store.read(LoraCheckpoint, "adapter", name)
    today = catalog_features(
        materials.catalog, materials.ids, codebooks, encoder, grounding.known, materials.images
    )
    return TrainedArm(base, checkpoint, build_item_index(base, checkpoint, today), grounding, config)


def shards_of(task: str, materials: Materials) -> tuple[list[SftShard], list[SftShard]]:
    """Shards of the two trainings, with the examples of one task alone where one is named.

    A task that the adapter's weeks lack is practised on the base's months instead.

    Raises:
        NothingToTrainError: no shard has an example of it.
    """
    if not task:
        return materials.base_shards, materials.lora_shards
    kept = [
        [replace(s, examples=s.examples.filter(pl.col(c.TASK) == task)) for s in shards]
        for shards in (materials.base_shards, materials.lora_shards)
    ]
    base, lora = ([s for s in shards if s.examples.height] for shards in kept)
    if not base and not lora:
        raise NothingToTrainError(f"no shard has an example of {task}")
    return base or lora, lora or base


def specialist_steps(
    task: str, materials: Materials, prefixes_NP: np.ndarray, item_ids: list[str], seed: int, steps: int
) -> int:
    """Steps in which a specialist meets as many requests of its task as SIGMA does in `steps`."""
    training = materials.config.training
    data = build_training_set(materials.base_shards, item_ids)
    share = 1 if steps <= COUNTED_STEPS else steps / COUNTED_STEPS
    seen = task_counts(data, prefixes_NP, materials.config, min(steps, COUNTED_STEPS), seed)[task] * share
    alone = [replace(u, requests=tuple(r for r in u.requests if r.task == task)) for u in data.users]
    own = TrainingSet([u for u in alone if u.requests], 0, data.counts)
    if not own.users:
        raise NothingToTrainError(f"no shard of the base has an example of {task}")
    few = list(islice(sample_steps(own, prefixes_NP, training, COUNTED_STEPS, seed), COUNTED_STEPS))
    mean = sum(len(mine) for step in few for mine in step.requests) / len(few)
    return max(MIN_STEPS, math.ceil(seen / mean))


def task_counts(
    data: TrainingSet, prefixes_NP: np.ndarray, config: SigmaConfig, steps: int, seed: int
) -> Counter[str]:
    """Requests of each task in the first `steps` batches."""
    task_of = {(r.instruction, r.focus): r.task for user in data.users for r in user.requests}
    batches = sample_steps(data, prefixes_NP, config.training, steps, seed)
    return Counter(
        task_of[r.instruction, r.focus] for batch in batches for mine in batch.requests for r in mine
    )


def seconds_a_step(materials: Materials, progress: Progress) -> float:
    """What a step of SIGMA's base takes here, measured on `TIMED_STEPS` steps."""
    from sigma_core.benchmarks.arms import ARMS, SIGMA
    from sigma_core.training.sft import train_base

    grounding = materials.grounding
    features = refit_features(
        materials.refit_catalog, grounding.refit, materials.ids, grounding.codebooks, materials.images
    )
    config = arm_config(ARMS[SIGMA], materials.config, materials.config.runtime.seed, TIMED_STEPS)
    with repeatable(config.runtime.deterministic):
        base = train_base(
            materials.base_shards,
            features,
            grounding.codebooks,
            grounding.encoder,
            config,
            NullTracker(),
            progress,
        )
    return float(base.figures["seconds"]) / TIMED_STEPS
