"""From a root on disk to an answer: what `sigma recommend` and notebooks use. Reads artifacts, computes none that miss.

Imports no dagster, no peft and no great_expectations. Errors name what exists. Source: our choice.
"""

import difflib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactError, ArtifactStore, read_json
from sigma_core.config import ConfigError, load_config, parse_date

if TYPE_CHECKING:
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.serving.engine import Engine
    from sigma_core.serving.user_to_item import UserToItemIndex


class RequestError(ValueError):
    """The request cannot be answered; the message says what exists instead."""


def pick_day(
    store: ArtifactStore,
    as_of: str | None,
    asset: str = "user_to_item_index",
    what: str = "recommendations",
) -> str:
    """The day to answer for: `as_of`, or the latest one that has the `asset` (`what` it holds, in words).

    Raises:
        RequestError: nothing is materialized, the date is malformed, or that day is not there.
    """
    days = store.partitions(asset)
    if not days:
        raise RequestError(
            f"{store.root} holds no {what} yet. Run `sigma materialize --as-of DATE --root {store.root}` first."
        )
    if as_of is None:
        return days[-1]
    try:
        parse_date(as_of)
    except ConfigError as error:
        raise RequestError(str(error)) from error
    if as_of not in days:
        shown = ", ".join(days[-5:])
        raise RequestError(
            f"{as_of} is not materialized in {store.root}; there are {len(days)} days, the latest: {shown}."
        )
    return as_of


@dataclass
class LoadedRecommender:
    """One day of a root, ready to answer."""

    day: date
    engine: "Engine"
    catalog: "ItemCatalog"
    lists: "UserToItemIndex"
    country: str

    def recommend(
        self,
        user_id: str,
        task: str | None = None,
        query: str | None = None,
        category: str | None = None,
        instruction: str | None = None,
        top_n: int = 10,
    ) -> list[dict[str, Any]]:
        """Ranked items for a user: rank, item_id, title, score, prefix, prefix_probability.

        Raises:
            RequestError: unknown user, task or category, or a task without what it needs.
        """
        from sigma_core.generation.recommender import Ask
        from sigma_core.instruction.collate import Request
        from sigma_core.instruction.requests import DayWords, free_request
        from sigma_core.instruction.tasks import TaskError

        if top_n < 1:
            raise RequestError(f"--top-n {top_n}: needed at least 1.")
        user = self._user(user_id)
        words = DayWords.from_json(self.lists.words) if self.lists.words else None
        try:
            text, focus = free_request(
                task,
                query,
                category,
                instruction,
                day=self.day,
                catalog=self.catalog,
                words=words,
                country=self.country,
            )
        except TaskError as error:
            raise RequestError(str(error)) from error
        exclude = self._filtered(user_id, task)
        ranked = self.engine.rank([user], [[Ask(Request(text, focus), exclude)]], top_n, collapse=True)[0]
        titles = dict(self.catalog.frame.select(c.ITEM_ID, c.TITLE).iter_rows())
        ids = self.engine.index.item_ids
        return [
            {
                c.RANK: rank,
                c.ITEM_ID: ids[found.row],
                c.TITLE: titles[ids[found.row]],
                c.SCORE: found.score,
                c.PREFIX: list(found.prefix),
                c.PREFIX_PROBABILITY: found.prefix_probability,
            }
            for rank, found in enumerate(ranked, start=1)
        ]

    def _filtered(self, user_id: str, task: str | None) -> "np.ndarray | None":
        """Index rows that the task's history filter leaves out: owned items, or all items of an owned text."""
        from sigma_core.instruction.tasks import TASKS

        kind = TASKS[task].exclude_history if task else "none"
        if kind == "none":
            return None
        owned = self.lists.owned.filter(pl.col(c.USER_ID) == user_id)[c.OWNED_ITEMS].explode().drop_nulls()
        frame = self.catalog.frame
        if kind == "texts":
            groups = frame.filter(pl.col(c.ITEM_ID).is_in(owned.implode()))[c.TEXT_GROUP]
            owned = frame.filter(pl.col(c.TEXT_GROUP).is_in(groups.implode()))[c.ITEM_ID]
        return np.array([self.engine.rows[item] for item in owned], dtype=np.int64)

    def _user(self, user_id: str) -> Any:
        mine = self.lists.contexts.filter(pl.col(c.USER_ID) == user_id)
        if mine.is_empty():
            known = self.lists.contexts[c.USER_ID].to_list()
            near = difflib.get_close_matches(user_id, known, n=3) or known[:3]
            raise RequestError(
                f"user {user_id!r} is not known on {self.day}; {len(known)} users are, for example {', '.join(near)}."
            )
        return self.engine.contexts(mine)[0]


def load_recommender(root: Path, as_of: str | None = None) -> LoadedRecommender:
    """Load what one day's answers need from `root`.

    Raises:
        RequestError: the day or one of its artifacts is not there.
    """
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.serving.engine import Engine
    from sigma_core.serving.item_index import ItemIndex
    from sigma_core.serving.promoted import PromotedModel
    from sigma_core.serving.user_to_item import UserToItemIndex
    from sigma_core.training.checkpoint import SigmaBase

    store = ArtifactStore(root)
    day = pick_day(store, as_of)
    month = f"{day[:7]}-01"
    binding = read_json(root / "root.json")
    config = load_config(binding["profile"], None, tuple(binding["settings"]))
    try:
        catalog = store.read(ItemCatalog, "item_catalog", day)
        engine = Engine(
            store.read(SigmaBase, "sigma_base", month),
            store.read(PromotedModel, "promoted_model", day).checkpoint,
            store.read(ItemIndex, "item_index", day),
            catalog,
            store.read(GroundedEncoder, "grounded_encoder", month),
            config,
        )
        lists = store.read(UserToItemIndex, "user_to_item_index", day)
    except ArtifactError as error:
        raise RequestError(str(error)) from error
    return LoadedRecommender(parse_date(day), engine, catalog, lists, config.data.country)
