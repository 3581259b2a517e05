"""A loaded model over one day's index: contexts and words in, ranked item ids out.

Holds the putting together of artifacts for answering, used by U2I, evaluation and live requests alike. No files, no HTTP.
Source: paper, three-step item generation.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.data.item_activity import aligned_counts
from sigma_core.devices import answering_device
from sigma_core.generation.recommender import Ask, Recommendation, Recommender
from sigma_core.instruction.aspects import aspects_of
from sigma_core.instruction.collate import Collator, UserContext, encode_contexts
from sigma_core.model.words import words_of

if TYPE_CHECKING:
    from sigma_core.config import SigmaConfig
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.serving.item_index import ItemIndex
    from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase


class Engine:
    """Answers requests of known or new contexts against one index."""

    def __init__(
        self,
        base: "SigmaBase",
        checkpoint: "LoraCheckpoint",
        index: "ItemIndex",
        catalog: "ItemCatalog",
        encoder: "GroundedEncoder",
        config: "SigmaConfig",
    ) -> None:
        """Build the model and the tables, on `runtime.device` where it is there.

        Raises:
            ArtifactError: the artifacts do not belong together.
        """
        import torch

        torch.set_num_threads(config.runtime.threads)
        checkpoint.check_bound(index.bound_to, "item_index")
        self.index, self.encoder, self.config = index, encoder, config
        self.rows = {item: row for row, item in enumerate(index.item_ids)}
        groups = dict(catalog.frame.select(c.ITEM_ID, c.TEXT_GROUP).iter_rows())
        device = answering_device(config.runtime)
        model = checkpoint.build(base).to(device)
        words = words_of(model)
        tau = config.generation.apf_temperature or checkpoint.apf_temperature
        self.recommender = Recommender(
            model,
            index.table(
                aligned_counts(catalog.frame, index.item_ids),
                model.shape.codebook_size,
                [groups[item] for item in index.item_ids],
                device,
            ),
            Collator(
                words,
                index.prefixes.astype(np.int64),
                model.shape.codebook_size,
                config.instruction.prompt_favorites,
            ),
            words.vectors().to(device),
            config.generation,
            tau,
            checkpoint.typical_sigma,
        )
        if config.generation.catalog_fusion:
            self.recommender.catalog_weight = checkpoint.catalog_weight
        self._focus: dict[str, np.ndarray] = {}

    def contexts(self, frame: pl.DataFrame) -> list[UserContext]:
        """Contexts of the frame over this index."""
        return encode_contexts(frame, self.rows)

    def focus(self, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Match vectors of what the texts stand for; each distinct one is encoded once in the engine's life."""
        new = sorted({aspect for text in texts for aspect in aspects_of(text)} - self._focus.keys())
        if new:
            self._focus.update(zip(new, self.encoder.match_vectors(new), strict=True))
        return self._focus

    def rank(
        self,
        users: Sequence[UserContext],
        asks: Sequence[Sequence[Ask]],
        top_n: int,
        *,
        collapse: bool = False,
    ) -> list[list[Recommendation]]:
        """Ranked items of every request, users in batches of `serving.batch_users`."""
        focus = self.focus([ask.request.focus for mine in asks for ask in mine])
        out: list[list[Recommendation]] = []
        size = self.config.serving.batch_users
        for start in range(0, len(users), size):
            out += self.recommender.rank(
                users[start : start + size], asks[start : start + size], focus, top_n, collapse
            )
        return out
