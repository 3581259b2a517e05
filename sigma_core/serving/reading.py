"""A request's words, understood: its task, what the model reads, what it is about, and the filters in it.

The command line and the API read alike. Free words are routed to a task by the grounded encoder; a route that is not sure
enough is told and not followed. Holds no user's data and runs no model but the encoder. Our choice.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sigma_core.instruction.collate import Request
from sigma_core.instruction.phrases import name_words
from sigma_core.instruction.requests import DayWords, KnownNames, Named, free_request
from sigma_core.instruction.routing import Route, TaskRouter, telling_words
from sigma_core.instruction.tasks import TASKS, TaskError
from sigma_core.serving.item_filter import FilterTable, ItemFilter, read_words

if TYPE_CHECKING:
    from sigma_core.data.catalog import ItemCatalog

MAX_ROUTES: Final = 4096  # instructions whose route is remembered
GENERAL: Final = "just_for_you"
# stands for whatever a person names, so that the route follows from how they ask: examples of spoken_wordings.yaml
_STAND_IN: Final = {"holiday": "Halloween", "category": "coffee", "phrase": "ice cream", "type": "ice cream"}
_SEASONS: Final = frozenset({"spring", "summer", "autumn", "fall", "winter"})
_ANY_HOLIDAY: Final = frozenset({"holiday", "holidays"})


class Asked(NamedTuple):
    """What a request says; "" and None are nothing."""

    task: str | None = None
    query: str | None = None
    category: str | None = None
    instruction: str | None = None
    user_id: str = ""


@dataclass(frozen=True)
class ReadRequest:
    """A request, understood.

    Attributes:
        task: whose preset answers.
        request: the words for the model and what they are about.
        wanted: the filters that came with it and those read out of its words.
        told: the filters read out of its words, a line each.
        route: of free words without a task: what they were taken for; None where the request named its task.
        followed: whether `task` is the route's.
    """

    task: str
    request: Request
    wanted: ItemFilter
    told: tuple[str, ...]
    route: Route | None = None
    followed: bool = False


class RequestReader:
    """Reads the requests of one day. Safe to use from several threads.

    Args:
        day, country: of the served day.
        catalog: its items.
        words: JSON of its `DayWords`; empty where an index has none.
        filters: what the day's items can be filtered by.
        encode: texts to match vectors.
    """

    def __init__(
        self,
        day: date,
        country: str,
        catalog: "ItemCatalog",
        words: Mapping[str, Any],
        filters: FilterTable,
        encode: Callable[[list[str]], np.ndarray],
    ) -> None:
        self._day, self._country, self._catalog, self._filters = day, country, catalog, filters
        self._words = DayWords.from_json(words) if words else None
        self._encode = encode
        self._router: TaskRouter | None = None
        self._making = threading.Lock()
        self._names: KnownNames | None = None
        self.route = lru_cache(maxsize=MAX_ROUTES)(self._route)

    def read(self, asked: Asked, wanted: ItemFilter, least_confidence: float) -> ReadRequest:
        """Understand a request; `least_confidence` is what a route needs to be followed. Above 1 nothing is routed, nor encoded.

        Raises:
            TaskError: an unknown task or category, or a task without the value it needs (`instruction.tasks`).
        """
        if asked.query and asked.category and not asked.task:
            raise TaskError("give --query or --category, not both; a filter keeps a query within a category.")
        read = read_words(self._filters, asked.query, asked.instruction, wanted)
        asked = asked._replace(query=read.query, instruction=read.instruction)
        route, chosen = None, asked
        if asked.instruction and least_confidence <= 1 and not (asked.task or asked.query or asked.category):
            route = self.route(asked.instruction)
            if route.confidence >= least_confidence:
                chosen = self._follow(asked, route)
        text, focus = self._rendered(chosen)
        task = chosen.task or ("query" if chosen.query else "category" if chosen.category else GENERAL)
        if route and not focus and not TASKS[task].focus and (named := self._named(asked.instruction)):
            focus = named.name  # something new, but for taco night
        followed = route is not None and task in (route.task, "category" if route.task == "query" else "")
        return ReadRequest(task, Request(text, focus), read.wanted, read.told, route, followed)

    def _rendered(self, asked: Asked) -> tuple[str, str]:
        task, query, category, instruction, user_id = asked
        return free_request(
            task or None,
            query or None,
            category or None,
            instruction or None,
            day=self._day,
            catalog=self._catalog,
            words=self._words,
            country=self._country,
            user_id=user_id,
            names=self.names if instruction else None,
        )

    # -------------------------------------------------------------------------------------- routing
    @property
    def names(self) -> KnownNames:
        """What instructions can name."""
        if self._names is None:
            self._names = KnownNames(self._day, self._catalog, self._country)
        return self._names

    def _named(self, instruction: str | None) -> Named | None:
        return self.names.find(instruction) if instruction else None

    def _route(self, instruction: str) -> Route:
        """The task of free words, whatever they name."""
        named, text = self._named(instruction), instruction
        if named is not None and not telling_words().issuperset(named.words):
            span = r"[\W_]+".join(named.words)
            text = re.sub(rf"(?<!\w){span}(?!\w)", _STAND_IN[named.kind], text, flags=re.I)
        return self._task_router().route(self._encode([text])[0])

    def _task_router(self) -> TaskRouter:
        with self._making:
            if self._router is None:
                self._router = TaskRouter(self._encode)
            return self._router

    def _follow(self, asked: Asked, route: Route) -> Asked:
        """The request as the route's task would have it; unchanged where the words do not carry that task."""
        words = frozenset(name_words(asked.instruction or ""))
        named = self._named(asked.instruction)
        thing = named.name if named else None
        if route.task == "query":
            if named and named.kind == "category":
                return asked._replace(task="category", category=thing)
            return asked._replace(task="query", query=thing or asked.instruction)
        if route.task == "holiday":
            if named and named.kind == "holiday":
                return asked._replace(task="holiday", query=thing)
            return asked._replace(task="holiday") if words & _ANY_HOLIDAY else asked
        if route.task == "season" and self._another_season(words):
            return asked
        if route.task == "campaign" and not self._has_offer(asked.user_id):
            return asked._replace(task="campaign", query=thing) if thing else asked
        return asked if route.task == GENERAL else asked._replace(task=route.task)

    def _another_season(self, words: frozenset[str]) -> bool:
        """Whether the words name a season, and not that of the day."""
        now = self._words.season if self._words else ""
        mine = {now, "fall"} if now == "autumn" else {now}
        return bool(words & _SEASONS) and not words & mine

    def _has_offer(self, user_id: str) -> bool:
        return bool(self._words and self._words.sent.get(user_id))


def told_route(read: ReadRequest) -> str:
    """A line on what free words were taken for; "" where the request named its task."""
    if read.route is None:
        return ""
    sure = f"{100 * read.route.confidence:.0f} % sure"
    return f"{read.task}, {sure}" if read.followed else f"{read.task} (nearest: {read.route.task}, {sure})"
