"""From a root on disk to an answer: what `sigma recommend` and notebooks use. Reads artifacts, computes none that miss.

Imports no dagster, no peft and no great_expectations. Errors name what exists. Source: our choice.
"""

import difflib
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactError, ArtifactStore
from sigma_core.config import ConfigError, parse_date
from sigma_core.root_file import RootError, read_binding
from sigma_core.serving.item_filter import ItemFilter

if TYPE_CHECKING:
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.generation.explain import Explanation
    from sigma_core.generation.recommender import Recommendation, Recommender
    from sigma_core.serving.engine import Engine
    from sigma_core.serving.item_filter import FilterTable
    from sigma_core.serving.reading import ReadRequest, RequestReader
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


SHOWN_MEMBERS: Final = 5  # items of a prefix that an explanation names


@dataclass(frozen=True)
class Wish:
    """What `sigma recommend` is asked: the words, the filters, and settings of the three steps (None: the model's own)."""

    task: str | None = None
    query: str | None = None
    category: str | None = None
    instruction: str | None = None
    top_n: int = 10
    wanted: ItemFilter = field(default_factory=ItemFilter)
    num_prefixes: int | None = None
    prefix_mass: float | None = None
    items_per_prefix: int | None = None
    temperature: float = 1.0
    explain: bool = False

    def given(self) -> dict[str, Any]:
        """The settings that the wish names."""
        names = ("num_prefixes", "prefix_mass", "items_per_prefix")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class Answered:
    """A list, the constraints read out of the words, the instruction the model read, and the steps behind the list.

    `task` is whose preset answered; `taken_for` says, of free words without a task, what they were taken for and how surely.
    """

    rows: list[dict[str, Any]]
    understood: tuple[str, ...]
    instruction: str
    explanation: dict[str, Any] | None = None
    task: str = ""
    taken_for: str = ""


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
        return self.answer(user_id, Wish(task, query, category, instruction, top_n)).rows

    def answer(self, user_id: str, wish: "Wish") -> "Answered":
        """The list of a wish with filters and settings, what was read out of its words, and the steps behind the list.

        Raises:
            RequestError: as `recommend`, or a filter that names nothing.
        """
        import torch

        from sigma_core.generation.explain import explain, with_settings
        from sigma_core.instruction.tasks import TASKS
        from sigma_core.serving.item_filter import FilterError
        from sigma_core.serving.reading import told_route

        if wish.top_n < 1:
            raise RequestError(f"--top-n {wish.top_n}: needed at least 1.")
        user = self._user(user_id)
        read = self._read(wish, user_id)
        task = TASKS[read.task]
        owned = self.lists.owned.filter(pl.col(c.USER_ID) == user_id)[c.OWNED_ITEMS].explode().drop_nulls()
        rows = [self.engine.rows[item] for item in owned if item in self.engine.rows]
        try:
            eligible_N = self.filters.rows(read.wanted, task.exclude_history, rows)
        except FilterError as error:
            raise RequestError(str(error)) from error
        if not eligible_N.any():
            raise RequestError("no item passes the filters: " + ("; ".join(read.told) or "loosen them") + ".")
        settings = {"temperature": wish.temperature, **task.preset, **wish.given()}
        recommender = with_settings(self.engine.recommender, **settings)
        eligible = torch.from_numpy(eligible_N)[None]
        with torch.inference_mode():
            focus = self.engine.focus([read.request.focus])
            found = recommender.beam([user], [[read.request]], focus, eligible)
            ranked = recommender.answer(found, eligible, wish.top_n, collapse=True)[0]
            why = explain(recommender, found, eligible)[0] if wish.explain else None
        shown = self._told(recommender, user, why, ranked) if why else None
        text = read.request.instruction
        return Answered(self._rows(ranked), read.told, text, shown, read.task, told_route(read))

    def _read(self, wish: "Wish", user_id: str) -> "ReadRequest":
        from sigma_core.instruction.tasks import TaskError
        from sigma_core.serving.reading import Asked

        asked = Asked(wish.task, wish.query, wish.category, wish.instruction, user_id)
        try:
            return self.reader.read(asked, wish.wanted, self.engine.config.http.route_confidence)
        except TaskError as error:
            raise RequestError(str(error)) from error

    def _rows(self, ranked: "list[Recommendation]") -> list[dict[str, Any]]:
        ids = self.engine.index.item_ids
        return [
            {
                c.RANK: rank,
                c.ITEM_ID: ids[found.row],
                c.TITLE: self.titles[ids[found.row]],
                c.SCORE: found.score,
                c.PREFIX: list(found.prefix),
                c.PREFIX_PROBABILITY: found.prefix_probability,
            }
            for rank, found in enumerate(ranked, start=1)
        ]

    def _told(
        self, recommender: "Recommender", user: Any, why: "Explanation", ranked: "list[Recommendation]"
    ) -> dict[str, Any]:
        """The steps as JSON values: sigma, sharpness, prefixes with their best members, and what each listed item is near to."""
        from sigma_core.generation.explain import nearest_history

        ids = self.engine.index.item_ids

        def title(row: int) -> str:
            return str(self.titles[ids[row]])

        near = nearest_history(recommender, [r.row for r in ranked], [*user.recent_rows, *user.favorite_rows])
        return {
            "sigma": why.sigma,
            "sharpness": why.sharpness,
            "covered": min(sum(part.probability for part in why.parts), 1.0),
            "prefixes": [
                {
                    c.PREFIX: list(part.prefix),
                    "probability": part.probability,
                    "items": [
                        {c.ITEM_ID: ids[row], c.TITLE: title(row), "item_probability": inside, c.SCORE: score}
                        for row, inside, score in part.items[:SHOWN_MEMBERS]
                    ],
                }
                for part in why.parts
            ],
            "items": [
                {
                    c.ITEM_ID: ids[found.row],
                    "item_probability": found.item_probability or 0.0,
                    "nearest_history": title(near[found.row][0]) if found.row in near else None,
                    "nearest_cosine": near[found.row][1] if found.row in near else None,
                }
                for found in ranked
            ],
        }

    @cached_property
    def reader(self) -> "RequestReader":
        """What understands the day's requests."""
        from sigma_core.serving.reading import RequestReader

        encode = self.engine.encoder.match_vectors
        return RequestReader(self.day, self.country, self.catalog, self.lists.words, self.filters, encode)

    @cached_property
    def filters(self) -> "FilterTable":
        """The day's items with what filters look at."""
        from sigma_core.serving.item_filter import FilterTable

        return FilterTable(self.engine.index.item_ids, self.catalog.frame, self.lists.prices)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Item id -> shown title."""
        return dict(self.catalog.frame.select(c.ITEM_ID, c.TITLE).iter_rows())

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
    try:
        config = read_binding(root).config()
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
    except (RootError, ConfigError, ArtifactError) as error:
        raise RequestError(str(error)) from error
    return LoadedRecommender(parse_date(day), engine, catalog, lists, config.data.country)
