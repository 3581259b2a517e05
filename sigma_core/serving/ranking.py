"""SIGMA as a ranker for evaluation: evaluation requests in, catalog rows out.

Groups requests by user so that one history prefill serves all of a user's requests. It applies the history filter a task
states and no other. Source: tasks.md; our choice.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request
from sigma_core.serving.engine import Engine
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.config import SigmaConfig
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.evaluation.requests import EvalRequest
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.serving.item_index import ItemIndex
    from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase

TOP_N = 20


def sigma_ranker(
    base: "SigmaBase",
    checkpoint: "LoraCheckpoint",
    index: "ItemIndex",
    catalog: "ItemCatalog",
    contexts: pl.DataFrame,
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
    progress: Progress = no_progress,
) -> "Callable[[list[EvalRequest]], np.ndarray]":
    """A ranker over the catalog's rows (items ascending by id), int32 [R, 20], padded with -1.

    Every user of a request must have a context.
    """
    engine = Engine(base, checkpoint, index, catalog, encoder, config)
    catalog_ids = catalog.frame[c.ITEM_ID].to_list()
    index_row = np.array(
        [engine.rows[item] for item in catalog_ids], dtype=np.int64
    )  # catalog row -> index row
    catalog_row = np.empty_like(index_row)
    catalog_row[index_row] = np.arange(len(index_row))

    def rank(requests: "list[EvalRequest]") -> np.ndarray:
        by_user: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_user.setdefault(request.user_id, []).append(number)
        users = {
            u.user_id: u for u in engine.contexts(contexts.filter(pl.col(c.USER_ID).is_in(list(by_user))))
        }
        if missing := sorted(by_user.keys() - users.keys()):
            raise ValueError(f"{len(missing)} users of the requests have no context (first: {missing[:3]}).")
        engine.focus([request.focus for request in requests])
        out = np.full((len(requests), TOP_N), -1, dtype=np.int32)
        done = 0
        for batch in _batches(by_user, config.serving.batch_users * 4):
            asks = [[_ask(requests[n], index_row) for n in by_user[user]] for user in batch]
            lists = engine.rank([users[user] for user in batch], asks, TOP_N)
            for number, ranked in zip([n for user in batch for n in by_user[user]], lists, strict=True):
                rows = catalog_row[[r.row for r in ranked]]
                out[number, : len(rows)] = rows
            done += len(lists)
            progress(done, len(requests), "SIGMA answers")
        return out

    return rank


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
