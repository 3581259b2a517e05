"""From a root on disk to an answer: what `sigma recommend` and notebooks use. Reads artifacts, computes none that miss.

Imports no dagster, no peft and no great_expectations. Errors name what exists. Source: our choice.
"""

import difflib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
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
    from sigma_core.instruction.collate import UserContext
    from sigma_core.serving.engine import Engine
    from sigma_core.serving.item_filter import FilterTable
    from sigma_core.serving.live_context import Past
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


def check_whole(root: Path, day: str, item_ids: Sequence[str], asset: str, held: Collection[str]) -> None:
    """Refuse a day of which only some artifacts were made anew.

    Args:
        root, day: what is loaded.
        item_ids: of the day's item index.
        asset: the artifact that must hold all of them.
        held: the ids that it holds; a set or a mapping.

    Raises:
        RequestError: the index has items that the artifact lacks.
    """
    missing = [item for item in item_ids if item not in held]
    if missing:
        raise RequestError(
            f"{day} is half published in {root}: its item_index has {len(missing)} items that its {asset} lacks, for "
            f"example {', '.join(missing[:3])}. Run `sigma materialize --as-of {day} --root {root}` to finish the day."
        )


SHOWN_MEMBERS: Final = 5  # items of a prefix that an explanation names


MAX_NEAR: Final = 1000  # user ids that an unknown one is compared with


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

    def check(self) -> None:
        """Refuse numbers that no list can be made with.

        Raises:
            RequestError: one is out of its bounds.
        """
        for name, value in (("top_n", self.top_n), *self.given().items()):
            if name != "prefix_mass" and value < 1:
                raise RequestError(f"--{name.replace('_', '-')} {value}: needed at least 1.")
        if self.prefix_mass is not None and not 0 < self.prefix_mass <= 1:
            raise RequestError(f"--prefix-mass {self.prefix_mass}: needed more than 0 and at most 1.")
        if not self.temperature > 0:
            raise RequestError(f"--temperature {self.temperature}: needed more than 0.")


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
        user_id: str | None = None,
        task: str | None = None,
        query: str | None = None,
        category: str | None = None,
        instruction: str | None = None,
        top_n: int = 10,
        *,
        profile: str | None = None,
        history: "Iterable[Past | tuple[Any, ...] | str] | None" = None,
    ) -> list[dict[str, Any]]:
        """Ranked items for a user: rank, item_id, title, score, prefix, prefix_probability.

        Someone the day does not know is told by `profile` (words) and `history` (item ids, or tuples of item id, days ago and
        how often; items that the catalog lacks are left out) instead of `user_id`; with none of the three nothing is known.

        Raises:
            RequestError: unknown user, task or category, a task without what it needs, or both kinds of user.
        """
        wish = Wish(task, query, category, instruction, top_n)
        return self.answer(user_id, wish, profile=profile, history=history).rows

    def answer(
        self,
        user_id: str | None,
        wish: "Wish",
        *,
        profile: str | None = None,
        history: "Iterable[Past | tuple[Any, ...] | str] | None" = None,
    ) -> "Answered":
        """The list of a wish with filters and settings, what was read out of its words, and the steps behind the list.

        Raises:
            RequestError: as `recommend`, a filter that names nothing, or a setting out of its bounds.
        """
        import torch

        from sigma_core.generation.explain import explain, with_settings
        from sigma_core.instruction.tasks import TASKS
        from sigma_core.serving.item_filter import FilterError
        from sigma_core.serving.reading import told_route

        wish.check()
        user, rows = self._who(user_id, profile, history)
        read = self._read(wish, user_id or "")
        task = TASKS[read.task]
        try:
            eligible_N = self.filters.rows(read.wanted, task.exclude_history, rows)
        except FilterError as error:
            raise RequestError(str(error)) from error
        if not eligible_N.any():
            raise RequestError("no item passes the filters: " + ("; ".join(read.told) or "loosen them") + ".")
        settings = {"temperature": wish.temperature, **task.preset, **wish.given()}
        recommender = with_settings(self.engine.recommender, **settings)
        eligible = torch.from_numpy(eligible_N)[None].to(recommender.device)
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

    def _who(
        self,
        user_id: str | None,
        profile: str | None,
        history: "Iterable[Past | tuple[Any, ...] | str] | None",
    ) -> "tuple[UserContext, list[int]]":
        """The context of whom the request is for, and the rows bought before."""
        from sigma_core.serving.live_context import told_context

        rows = self.engine.rows
        if user_id is None:
            past = [_past(event) for event in history or ()]
            told, owned = told_context("", profile or "", past, rows, self.engine.config.instruction)
            return told, sorted(owned)
        if profile is not None or history is not None:
            raise RequestError("give user_id, or profile and history, not both.")
        mine = self.lists.contexts.filter(pl.col(c.USER_ID) == user_id)
        if mine.is_empty():
            raise RequestError(self._unknown(user_id))
        items = self.lists.owned.filter(pl.col(c.USER_ID) == user_id)[c.OWNED_ITEMS].explode().drop_nulls()
        return self.engine.contexts(mine)[0], [rows[item] for item in items if item in rows]

    def _unknown(self, user_id: str) -> str:
        """What is said of a user that the day does not know: ids that are near, of `MAX_NEAR` beside it in the order of ids."""
        known = sorted(self.lists.contexts[c.USER_ID])
        first = max(bisect_left(known, user_id) - MAX_NEAR // 2, 0)
        near = difflib.get_close_matches(user_id, known[first : first + MAX_NEAR], n=3)
        some = ", ".join(near or known[:3])
        return (
            f"user {user_id!r} is not known on {self.day}; {len(known)} users are, for example {some}. In Python someone new is "
            "told by profile and history instead of user_id."
        )


def _past(event: "Past | tuple[Any, ...] | str") -> "Past":
    """An event of an inline history.

    Raises:
        RequestError: it is none.
    """
    from sigma_core.serving.live_context import Past

    try:
        past = Past(event) if isinstance(event, str) else Past(*event)
        good = isinstance(past.item_id, str) and past.days_ago >= 0 and past.times >= 1
    except TypeError:
        good = False
    if not good:
        raise RequestError(
            f"history: {event!r} is no event; needed an item id, or (item id, days ago, how often): ('1082185', 2, 1)."
        )
    return past


def load_recommender(root: Path, as_of: str | None = None, device: str | None = None) -> LoadedRecommender:
    """Load what one day's answers need from `root`, to its `runtime.device` or another one.

    Raises:
        RequestError: the day or one of its artifacts is not there, or they do not belong together.
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
        if device is not None:
            config = config.model_copy(
                update={"runtime": config.runtime.model_copy(update={"device": device})}
            )
        catalog = store.read(ItemCatalog, "item_catalog", day)
        index = store.read(ItemIndex, "item_index", day)
        check_whole(root, day, index.item_ids, "item_catalog", set(catalog.frame[c.ITEM_ID]))
        engine = Engine(
            store.read(SigmaBase, "sigma_base", month),
            store.read(PromotedModel, "promoted_model", day).checkpoint,
            index,
            catalog,
            store.read(GroundedEncoder, "grounded_encoder", month),
            config,
        )
        lists = store.read(UserToItemIndex, "user_to_item_index", day)
    except (RootError, ConfigError, ArtifactError) as error:
        raise RequestError(str(error)) from error
    return LoadedRecommender(parse_date(day), engine, catalog, lists, config.data.country)
