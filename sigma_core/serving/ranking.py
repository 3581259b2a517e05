"""SIGMA as a ranker for evaluation: evaluation requests in, catalog rows out.

Groups requests by user so that one history prefill serves all of a user's requests. It applies the history filter a task
states and no other. Source: tasks.md; our choice.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from sigma_core import columns as c
from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request
from sigma_core.serving.engine import Engine
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.config import SigmaConfig
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.evaluation.requests import EvalRequest
    from sigma_core.generation.recommender import Recommender
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.serving.item_index import ItemIndex
    from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase

TOP_N = 20


class SigmaRanker:
    """A ranker over the catalog's rows (items ascending by id).

    Args:
        base, checkpoint, index, encoder: of one day, belonging together.
        catalog: of the day; every item is in the index.
        contexts: frame of `CONTEXT_SCHEMA`.
        config: of generation and serving.
        progress: told after each batch of users.
    """

    def __init__(
        self,
        base: "SigmaBase",
        checkpoint: "LoraCheckpoint",
        index: "ItemIndex",
        catalog: "ItemCatalog",
        contexts: pl.DataFrame,
        encoder: "GroundedEncoder",
        config: "SigmaConfig",
        progress: Progress = no_progress,
    ) -> None:
        self.engine = Engine(base, checkpoint, index, catalog, encoder, config)
        self._contexts, self._progress = contexts, progress
        self._most = config.serving.batch_users * 4
        rows = [self.engine.rows[item] for item in catalog.frame[c.ITEM_ID].to_list()]
        self._index_row = np.array(rows, dtype=np.int64)  # catalog row -> index row
        self._catalog_row = np.empty_like(self._index_row)
        self._catalog_row[self._index_row] = np.arange(len(rows))

    def __call__(self, requests: "list[EvalRequest]") -> np.ndarray:
        """int32 [R, 20] catalog rows, best first, padded with -1.

        Raises:
            ValueError: a user of the requests has no context.
        """
        return self.scored(requests)[0]

    def scored(self, requests: "list[EvalRequest]") -> tuple[np.ndarray, np.ndarray]:
        """The same rows, and the probability of each, float32 [R, 20]; 0 pads."""
        return self.variants(requests, [self.engine.recommender])[0]

    @torch.inference_mode()
    def variants(
        self, requests: "list[EvalRequest]", recommenders: "Sequence[Recommender]"
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows and probabilities by each recommender's steps 2 and 3, after one step 1 that they share.

        They must have the engine's model, items and number of prefixes (`explain.with_settings`).
        """
        by_user: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_user.setdefault(request.user_id, []).append(number)
        chosen = self._contexts.filter(pl.col(c.USER_ID).is_in(list(by_user)))
        users = {user.user_id: user for user in self.engine.contexts(chosen)}
        if missing := sorted(by_user.keys() - users.keys()):
            raise ValueError(f"{len(missing)} users of the requests have no context (first: {missing[:3]}).")
        focus = self.engine.focus([request.focus for request in requests])
        shape = (len(requests), TOP_N)
        out = [(np.full(shape, -1, np.int32), np.zeros(shape, np.float32)) for _ in recommenders]
        done, size = 0, self.engine.config.serving.batch_users
        for batch in _batches(by_user, self._most):
            for start in range(0, len(batch), size):
                part = batch[start : start + size]
                asks = [[_ask(requests[n], self._index_row) for n in by_user[user]] for user in part]
                numbers = [n for user in part for n in by_user[user]]
                found = self.engine.recommender.search([users[user] for user in part], asks, focus)
                for (rows, scores), recommender in zip(out, recommenders, strict=True):
                    for number, ranked in zip(numbers, recommender.answer(*found, TOP_N), strict=True):
                        rows[number, : len(ranked)] = self._catalog_row[[r.row for r in ranked]]
                        scores[number, : len(ranked)] = [r.score for r in ranked]
                done += len(numbers)
            self._progress(done, len(requests), "SIGMA answers")
        return out


sigma_ranker = SigmaRanker


def _ask(request: "EvalRequest", index_row: np.ndarray) -> Ask:
    return Ask(Request(request.instruction, request.focus), index_row[request.exclude])


def _batches(by_user: dict[str, list[int]], most_requests: int) -> list[Sequence[str]]:
    """Users in groups of at most `most_requests` requests (one user at least)."""
    out: list[list[str]] = []
    count = most_requests
    for user in sorted(by_user):
        if count + len(by_user[user]) > most_requests:
            out.append([])
            count = 0
        out[-1].append(user)
        count += len(by_user[user])
    return [tuple(batch) for batch in out]
