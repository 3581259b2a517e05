"""The user-to-item index: every user's list for the day, and the contexts live requests are answered from.

Holds the artifact and its batch computation. Source: paper, nearline serving (results go to a U2I index that recall reads).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TABLE, digest_bytes, digest_frame, digest_json, read_json, write_json
from sigma_core.data.typical_prices import PRICES_SCHEMA

if TYPE_CHECKING:
    from sigma_core.config import SigmaConfig
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.generation.recommender import Recommendation
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.instruction.collate import Request, UserContext
    from sigma_core.serving.beam_memory import BeamMemory
    from sigma_core.serving.engine import Engine
    from sigma_core.serving.item_index import ItemIndex
    from sigma_core.tracking import Progress
    from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase

U2I_SCHEMA: Final[dict[str, Any]] = {
    c.USER_ID: pl.String,
    c.TASK: pl.String,
    c.RANK: pl.Int32,
    c.ITEM_ID: pl.String,
    c.SCORE: pl.Float64,
    c.PREFIX: pl.List(pl.Int32),
    c.PREFIX_PROBABILITY: pl.Float64,
}


@dataclass(frozen=True)
class UserToItemIndex:
    """Lists (one row a recommendation, by user, task and rank), contexts of all users, what
    each of them owns (the filter of requests for something new), the day's words, and typical unit prices.
    """

    frame: pl.DataFrame
    contexts: pl.DataFrame
    owned: pl.DataFrame
    words: dict[str, Any] = field(default_factory=dict)
    prices: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PRICES_SCHEMA))

    def save(self, directory: Path) -> None:
        """Write `table.parquet`, `contexts.parquet`, `owned.parquet`, `prices.parquet` and `words.json`."""
        self.frame.write_parquet(directory / TABLE)
        self.contexts.write_parquet(directory / "contexts.parquet")
        self.owned.write_parquet(directory / "owned.parquet")
        self.prices.write_parquet(directory / "prices.parquet")
        write_json(directory / "words.json", self.words)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote; an index of before there were prices has none."""
        prices = directory / "prices.parquet"
        return cls(
            pl.read_parquet(directory / TABLE),
            pl.read_parquet(directory / "contexts.parquet"),
            pl.read_parquet(directory / "owned.parquet"),
            read_json(directory / "words.json"),
            pl.read_parquet(prices) if prices.exists() else pl.DataFrame(schema=PRICES_SCHEMA),
        )

    def digest(self) -> str:
        """Digest of lists, contexts, prices and words."""
        parts = (
            *map(digest_frame, (self.frame, self.contexts, self.owned, self.prices)),
            digest_json(self.words),
        )
        return digest_bytes(*(part.encode() for part in parts))

    def summary(self) -> dict[str, Any]:
        """Users, rows, distinct items shown."""
        return {
            "users": self.contexts.height,
            "rows": self.frame.height,
            "distinct_items": self.frame[c.ITEM_ID].n_unique(),
            "tasks": sorted(self.frame[c.TASK].unique().to_list()),
        }


def build_user_to_item_index(
    base: "SigmaBase",
    checkpoint: "LoraCheckpoint",
    index: "ItemIndex",
    catalog: "ItemCatalog",
    contexts: pl.DataFrame,
    owned: pl.DataFrame,
    encoder: "GroundedEncoder",
    config: "SigmaConfig",
    progress: "Progress",
    words: Mapping[str, Any] | None = None,
    prices: pl.DataFrame | None = None,
    beams: Path | None = None,
) -> tuple[UserToItemIndex, dict[str, int]]:
    """Lists of every context for `serving.u2i_tasks` (tasks that need no word from the user), and counts of the work done.

    `beams` is the file of what step 1 found (`beam_memory`): users whom a changed catalog does not touch go through steps 2
    and 3 alone. Without one everybody goes through all three.
    """
    from sigma_core.instruction.collate import Request
    from sigma_core.instruction.tasks import render
    from sigma_core.serving.beam_memory import BeamMemory
    from sigma_core.serving.engine import Engine

    tasks = config.serving.u2i_tasks
    engine = Engine(base, checkpoint, index, catalog, encoder, config)
    users = engine.contexts(contexts)
    requests = [Request(render(task, 0, {})) for task in tasks]
    memory = BeamMemory(
        beams,
        engine.recommender,
        index.item_ids,
        users,
        requests,
        digest_json([base.digest(), checkpoint.digest()]),
    )
    lists = _lists(engine, memory, users, requests, progress)
    memory.save()
    value = UserToItemIndex(
        _table(users, tasks, index.item_ids, lists),
        contexts,
        owned,
        dict(words or {}),
        pl.DataFrame(schema=PRICES_SCHEMA) if prices is None else prices,
    )
    return value, {"users_searched": memory.searched, "users_with_kept_prefixes": memory.remembered}


def _table(
    users: "Sequence[UserContext]",
    tasks: Sequence[str],
    item_ids: Sequence[str],
    lists: "Mapping[int, list[list[Recommendation]]]",
) -> pl.DataFrame:
    """The lists as rows of `U2I_SCHEMA`, by user, task and rank; made by columns, as they are many."""
    ranked = [
        (user.user_id, task, one)
        for at, user in enumerate(users)
        for task, one in zip(tasks, lists[at], strict=True)
    ]
    shown = [r for _, _, one in ranked for r in one]
    columns = {
        c.USER_ID: [user for user, _, one in ranked for _ in one],
        c.TASK: [task for _, task, one in ranked for _ in one],
        c.RANK: [rank for _, _, one in ranked for rank in range(1, len(one) + 1)],
        c.ITEM_ID: [item_ids[r.row] for r in shown],
        c.SCORE: [r.score for r in shown],
        c.PREFIX: _prefixes([r.prefix for r in shown]),
        c.PREFIX_PROBABILITY: [r.prefix_probability for r in shown],
    }
    return pl.DataFrame(columns, schema=U2I_SCHEMA)


def _prefixes(prefixes: Sequence[tuple[int, ...]]) -> pl.Series:
    if not prefixes:
        return pl.Series([], dtype=U2I_SCHEMA[c.PREFIX])
    return pl.Series(np.asarray(prefixes, dtype=np.int32)).cast(U2I_SCHEMA[c.PREFIX])


def _lists(
    engine: "Engine",
    memory: "BeamMemory",
    users: "Sequence[UserContext]",
    requests: "Sequence[Request]",
    progress: "Progress",
) -> "dict[int, list[list[Recommendation]]]":
    """A list a request for the user at each place."""
    import torch

    config, recommender = engine.config, engine.recommender
    known, missing = memory.split()
    lists: dict[int, list[list[Recommendation]]] = {}
    size = config.serving.batch_users
    batches = [
        (part[n : n + size], part is known) for part in (known, missing) for n in range(0, len(part), size)
    ]
    for places, is_known in batches:
        one = torch.ones(1, 1, dtype=torch.bool, device=recommender.device)
        everything = one.expand(len(places) * len(requests), len(engine.index.item_ids))
        with torch.inference_mode():
            if is_known:
                found = memory.of(places)
            else:
                batch = [users[at] for at in places]
                found = recommender.beam(batch, [requests] * len(batch), {}, everything)
                memory.remember(places, found)
            answers = recommender.answer(
                found, everything, config.serving.u2i_top_n, config.generation.collapse_text_groups
            )
        for number, at in enumerate(places):
            lists[at] = answers[number * len(requests) : (number + 1) * len(requests)]
        progress(len(lists), len(users), "user_to_item_index")
    return lists
