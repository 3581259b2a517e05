"""Stages of `sigma benchmark scaling` around texts and codes, and what is not measured and why.

Vectors of the multiplied catalog are made up: those of the root's items, moved a little so that no two are alike (equal texts would
share a row, and the codebooks would be fitted on fewer). Texts to encode are the root's with a number behind. Our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from sigma_core import columns as c

if TYPE_CHECKING:
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.grounding.embed import ItemEmbeddings
    from sigma_core.serving.runtime import LoadedRecommender
    from sigma_core.tokenization.codebooks import Codebooks

NEW_TEXTS: Final = 64  # of a day at scale 1
NOISE: Final = 0.05  # of made-up vectors, a dimension's share of a unit vector
TEACHER: Final = "item_id_embeddings"
NOT_MEASURED: Final[dict[str, str]] = {
    "interaction_history": "puts the days of a month together, once a month",
    "grounded_encoder": "a fixed number of steps (grounding.train_steps)",
    "refit_item_embeddings": "the call of item_embeddings on the refit's catalog, every distinct text new",
    "sigma_base": "a fixed number of steps (training.base_steps)",
    "lora_checkpoint": "a fixed number of steps (training.lora_steps)",
    "promoted_model": "judges a fixed number of households (promotion.sample_households, guardrail_households)",
    "eval_report": "lists as in user_to_item_index, and the opponents' fits: an evaluation, not made with the day",
    "daily_refresh": "a job, not a stage: the sum of the day's stages",
}


@dataclass(frozen=True)
class RefitInputs:
    """What the stages read beside the multiplied data: the root's codebooks and vectors, and digests of both."""

    codebooks: "Codebooks"
    embeddings: "ItemEmbeddings"
    digests: dict[str, str]


def refit_inputs(root: Path, loaded: "LoadedRecommender") -> RefitInputs:
    """The codebooks of the day's month and the vectors of the day.

    Raises:
        ArtifactError: the root lacks one of them.
    """
    from sigma_core.artifacts import ArtifactStore
    from sigma_core.benchmarks.record import artifact_digests
    from sigma_core.grounding.embed import ItemEmbeddings
    from sigma_core.tokenization.codebooks import Codebooks

    store, day = ArtifactStore(root), loaded.day.isoformat()
    month = f"{day[:7]}-01"
    return RefitInputs(
        store.read(Codebooks, "codebooks", month),
        store.read(ItemEmbeddings, "item_embeddings", day),
        artifact_digests(root, {"codebooks": [month], "item_embeddings": [day]}),
    )


def made_up_embeddings(known: "ItemEmbeddings", item_ids: list[str], seed: int) -> "ItemEmbeddings":
    """Distinct unit vectors for the ids, near those of `known` in turn."""
    from sigma_core.grounding.embed import ItemEmbeddings

    ids = sorted(item_ids)
    vectors = known.vectors[np.arange(len(ids)) % len(known.vectors)]
    rng = np.random.default_rng(seed)
    scale = NOISE / np.sqrt(vectors.shape[1])
    vectors = vectors + scale * rng.standard_normal(vectors.shape, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ItemEmbeddings(ids, ids, vectors, known.encoder_digest)


def refit_stages(
    loaded: "LoadedRecommender",
    inputs: RefitInputs,
    events: pl.DataFrame,
    catalog: "ItemCatalog",
    scale: int,
    seed: int,
) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Each stage: the number of things it works on, and the call. `events` and `catalog` are multiplied already."""
    from sigma_core.data.calendar import load_themes
    from sigma_core.data.complements import load_complements
    from sigma_core.grounding.embed import embed_items
    from sigma_core.grounding.id_embeddings import ItemIdEmbeddings, fit_id_embeddings
    from sigma_core.grounding.relevance_pairs import build_relevance_pairs
    from sigma_core.instruction.phrases import answering_items
    from sigma_core.tokenization.codebooks import fit_codebooks
    from sigma_core.tokenization.semantic_ids import build_semantic_id_map

    config, day, encoder = loaded.engine.config, loaded.day, loaded.engine.encoder
    threads = config.runtime.threads
    known = events.filter(pl.col(c.EVENT_DATE) <= day)
    items = catalog.frame[c.ITEM_ID].to_list()
    vectors = made_up_embeddings(inputs.embeddings, items, seed)
    width = config.grounding.id_dim + 1
    taught = np.random.default_rng(seed).standard_normal((len(items), width), dtype=np.float32)
    teacher = ItemIdEmbeddings(vectors.item_ids, taught)
    some = loaded.catalog.frame[c.TEXT].unique().sort()
    texts = [f"{some[number % len(some)]} {number}" for number in range(NEW_TEXTS * scale)]
    ids = [f"{number:09d}" for number in range(len(texts))]

    def pairs() -> Any:
        phrases = answering_items(catalog.frame, "train")
        return build_relevance_pairs(
            known, catalog, load_themes(), phrases, config.grounding, seed, complements=load_complements()
        )

    return {
        TEACHER: (known.height, lambda: fit_id_embeddings(known, config.grounding, seed, threads, as_of=day)),
        "relevance_pairs": (known.height, pairs),
        "codebooks": (
            len(items), lambda: fit_codebooks(vectors, config.tokenization, seed, threads, id_embeddings=teacher)
        ),
        "item_embeddings": (len(texts), lambda: embed_items(ids, texts, encoder)),
        "semantic_id_map": (len(items), lambda: build_semantic_id_map(catalog, inputs.codebooks, vectors)),
    }  # fmt: skip
