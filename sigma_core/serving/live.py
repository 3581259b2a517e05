"""One published day, ready for live requests: what was asked becomes model input, what the model says becomes items.

Holds lookups, filters, the batch call and the prepared lists that step in when the budget is spent. Knows no HTTP and no
queue. A newer day replaces it by one assignment. Source: paper, nearline serving; our choice.
"""

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.grounding.lexical import for_search
from sigma_core.instruction.aspects import aspects_of
from sigma_core.instruction.collate import Request, UserContext
from sigma_core.instruction.routing import Route
from sigma_core.instruction.tasks import TASKS, TaskError
from sigma_core.serving.item_filter import FilterError, FilterTable, ItemFilter
from sigma_core.serving.live_context import Past, told_context
from sigma_core.serving.live_store import LiveStore, end_of_day
from sigma_core.serving.reading import Asked, ReadRequest, RequestReader
from sigma_core.serving.runtime import LoadedRecommender, RequestError
from sigma_core.serving.text_groups import TextGroups

if TYPE_CHECKING:
    from sigma_core.generation.explain import Explanation
    from sigma_core.generation.recommender import Recommendation, Recommender
    from sigma_core.serving.http.schemas import RecommendRequest
    from sigma_core.serving.session_cache import SessionCache

MAX_FOCUS: Final = 4096  # focus vectors kept
MAX_OWNED: Final = 8192  # users whose purchases are kept as rows
_SHOWN: Final = (c.TITLE, c.CATEGORY, c.DEPARTMENT, c.BRAND, c.PRICE_BAND, c.IS_NEW)
_LIST: Final = (c.ITEM_ID, c.SCORE, c.PREFIX, c.PREFIX_PROBABILITY)


class Settings(NamedTuple):
    """What requests of one forward pass must share."""

    num_prefixes: int | None
    items_per_prefix: int | None
    temperature: float
    explain: bool
    prefix_mass: float | None = None

    def with_preset(self, task: str) -> "Settings":
        """What the request left open, by the task's preset; the model's own settings fill the rest."""
        return self._replace(**{k: v for k, v in TASKS[task].preset.items() if getattr(self, k) is None})


@dataclass(frozen=True)
class Prepared:
    """A request, understood: everything the model or a prepared list needs."""

    day: "LiveDay"
    user_id: str | None
    known: bool
    context: UserContext
    task: str
    request: Request
    eligible_N: np.ndarray  # bool, rows of the index that may be returned
    owned: frozenset[int]  # rows bought before
    n: int
    settings: Settings
    understood: tuple[str, ...] = ()  # constraints read out of the words, a line each
    route: Route | None = None  # of free words without a task: what they were taken for
    followed: bool = False  # whether `task` is the route's


class Found(NamedTuple):
    """What the model answered: the shown list, and the steps behind it when they were asked for."""

    ranked: "list[Recommendation]"
    explanation: "Explanation | None"
    tokens: int = 0  # of profile and history
    kept: int = 0  # of them, how many the session cache had


class LiveDay:
    """A loaded day with the lookups that requests need."""

    def __init__(self, loaded: LoadedRecommender, text_vectors: np.ndarray, model: str) -> None:
        """Build the lookups.

        Args:
            loaded: the day.
            text_vectors: float32 [N, T + W], unit match vectors in index row order, for search and similar items.
            model: digest that names what is served.
        """
        self.loaded, self.text_vectors, self.model = loaded, text_vectors, model
        self.engine, self.config = loaded.engine, loaded.engine.config
        self.day = loaded.day.isoformat()
        index, catalog = self.engine.index, loaded.catalog.frame
        self.item_ids, self.rows = index.item_ids, self.engine.rows
        order = pl.DataFrame({c.ITEM_ID: self.item_ids}, schema={c.ITEM_ID: pl.String})
        items = order.join(catalog, on=c.ITEM_ID, how="left", maintain_order="left")
        self.shown: list[dict[str, Any]] = items.select(
            c.ITEM_ID, pl.col(*_SHOWN[:-1]), pl.col(c.IS_NEW).fill_null(value=False)
        ).to_dicts()
        self.filters = FilterTable(self.item_ids, catalog, loaded.lists.prices)
        self.reader = RequestReader(
            loaded.day, loaded.country, loaded.catalog, loaded.lists.words, self.filters, self._vectors
        )
        self._groups = TextGroups(items[c.TEXT_GROUP].to_list())
        sold = items[c.NUM_EVENTS_28D].to_numpy().astype(np.float64)
        self.popularity = sold / max(sold.sum(), 1.0)
        self.popular = np.argsort(-self.popularity, kind="stable")
        self.everything_N = np.ones(len(self.item_ids), dtype=bool)
        self._user_row = {user: n for n, user in enumerate(loaded.lists.contexts[c.USER_ID])}
        self.user_ids = sorted(self._user_row)  # known users
        self._owned_row = {user: n for n, user in enumerate(loaded.lists.owned[c.USER_ID])}
        self._lists = _offsets(loaded.lists.frame)
        self._focus: OrderedDict[str, np.ndarray] = OrderedDict()
        self._focus_lock = threading.Lock()
        self.store: LiveStore | None = None
        self.sessions: SessionCache | None = None
        self._variant = lru_cache(maxsize=64)(self._make_variant)
        self._published_owned = lru_cache(maxsize=MAX_OWNED)(self._owned_by)

    # ------------------------------------------------------------------------------------- lookups
    def users_like(self, starts_with: str, n: int) -> tuple[int, list[str]]:
        """How many published users' ids begin so, and the first `n` of them."""
        first = bisect_left(self.user_ids, starts_with)
        end = bisect_right(
            self.user_ids, starts_with, lo=first, key=lambda user: str(user)[: len(starts_with)]
        )
        return end - first, self.user_ids[first : min(end, first + n)]

    def values(self, field: str) -> list[str]:
        """What a filter field may name, sorted."""
        return self.filters.values(field)

    def profile_of(self, user_id: str) -> str:
        """The user's profile in words; "" when nothing is known."""
        row = self._user_row.get(user_id)
        return "" if row is None else str(self.loaded.lists.contexts[c.PROFILE_TEXT][row])

    def is_known(self, user_id: str) -> bool:
        """Whether anything is known of this user, published or live."""
        return user_id in self._user_row or bool(self.store and self.store.user(user_id))

    def known_user(self, user_id: str) -> tuple[UserContext, frozenset[int]] | None:
        """The user's context and the rows bought before, live events included; None for an unknown user."""
        published = self._published(user_id)
        stored = self.store.user(user_id) if self.store else None
        daily = (end_of_day(self.loaded.day), 0)
        if stored is None or (stored.watermark_us, stored.num_events) <= daily:
            return published
        from sigma_core.serving.nearline import unpacked_context

        context, new = unpacked_context(user_id, self.profile_of(user_id), stored, self.rows)
        owned = published[1] if published else frozenset()
        return context, owned | {self.rows[item] for item in new}

    def _published(self, user_id: str) -> tuple[UserContext, frozenset[int]] | None:
        row = self._user_row.get(user_id)
        if row is None:
            return None
        context = self.engine.contexts(self.loaded.lists.contexts[row : row + 1])[0]
        return context, self._published_owned(user_id)

    def owned_rows(self, user_id: str) -> frozenset[int]:
        """Rows the user bought before, those of live events as soon as they are stored."""
        since = self.store.taken_by(user_id) if self.store else set()
        return self._published_owned(user_id) | {self.rows[item] for item in since if item in self.rows}

    def _owned_by(self, user_id: str) -> frozenset[int]:
        place = self._owned_row.get(user_id)
        items = [] if place is None else self.loaded.lists.owned[c.OWNED_ITEMS][place].to_list()
        return frozenset(self.rows[item] for item in items if item in self.rows)

    def prepared_list(self, user_id: str, task: str, most: int | None = None) -> "list[Recommendation]":
        """The first `most` of the user's list of the U2I index, best first; empty when there is none.

        It holds P(c | T) and the scores: P(id | T, c) is their ratio, and unknown where the whole catalog is fused into scores.
        """
        from sigma_core.generation.recommender import Recommendation

        if self.store is not None:
            stored = self.store.list_of(user_id, task)
            listed = stored.value if stored else []
        else:
            listed = self._published_list(*self._lists.get((user_id, task), (0, 0)))
        fused = self.engine.recommender.catalog_weight > 0
        return [
            Recommendation(
                self.rows[item],
                score,
                tuple(prefix),
                probability,
                None if fused or not probability else min(score / probability, 1.0),  # 1: rounding
            )
            for item, score, prefix, probability in listed[:most]
            if item in self.rows
        ]

    def _published_list(self, start: int, stop: int) -> list[Any]:
        return [list(row) for row in self.loaded.lists.frame[start:stop].select(_LIST).iter_rows()]

    def load_into(self, store: "LiveStore") -> None:
        """Put the day's lists into the store, where newer ones stay, and read from it from now on."""
        lists = ((user, task, self._published_list(*span)) for (user, task), span in self._lists.items())
        store.load_day(lists, self.loaded.day, self.model)
        self.store = store

    def open_session(self, cache: "SessionCache") -> None:
        """Keep users' states in `cache` from now on; a cache of another model is refused.

        Raises:
            ValueError: the cache is bound to another model.
        """
        if cache.model != self.model:
            raise ValueError(f"a session cache of model {cache.model} cannot serve {self.model}.")
        self.sessions = self.engine.recommender.sessions = cache
        self._variant.cache_clear()

    # ----------------------------------------------------------------------------------- requests
    def prepare(self, wish: "RecommendRequest", least_confidence: float | None = None) -> Prepared:
        """Understand a request; free words are routed to a task when that is as sure as `least_confidence` (none: as configured).

        Raises:
            RequestError: an unknown task or category, or a task without the value it needs.
        """
        read = self._read(
            wish, self.config.http.route_confidence if least_confidence is None else least_confidence
        )
        context, owned, known = self._who(wish)
        steps = wish.steps
        settings = Settings(
            steps.num_prefixes, steps.items_per_prefix, steps.temperature, wish.explain, steps.prefix_mass
        ).with_preset(read.task)
        return Prepared(
            self,
            wish.user_id,
            known,
            context,
            read.task,
            read.request,
            self._eligible(read.wanted, read.task, owned),
            owned,
            wish.n,
            settings,
            read.told,
            read.route,
            read.followed,
        )

    def _read(self, wish: "RecommendRequest", least_confidence: float) -> ReadRequest:
        asked = Asked(wish.task, wish.query, wish.category, wish.instruction, wish.user_id or "")
        wanted = ItemFilter(**dict(wish.filters))
        try:
            return self.reader.read(asked, wanted, least_confidence)
        except TaskError as error:
            raise RequestError(str(error).replace("--", "")) from error

    def _who(self, wish: "RecommendRequest") -> tuple[UserContext, frozenset[int], bool]:
        """The context, the rows bought before, and whether anything is known of this user."""
        if wish.user_id is not None and (known := self.known_user(wish.user_id)) is not None:
            return *known, True
        past = [Past(e.item_id, e.days_ago, e.count) for e in wish.history or ()]
        told = told_context(wish.user_id or "", wish.profile or "", past, self.rows, self.config.instruction)
        context, owned = told
        return context, owned, bool(wish.profile or owned)

    def _eligible(self, wanted: ItemFilter, task: str, owned: frozenset[int]) -> np.ndarray:
        try:
            return self.filters.rows(wanted, TASKS[task].exclude_history, owned)
        except FilterError as error:
            raise RequestError(str(error)) from error

    # -------------------------------------------------------------------------------------- model
    def answer(self, batch: Sequence[Prepared]) -> list[Found]:
        """Answers of the model, in order; requests that share `settings` share one forward pass."""
        out: list[Found] = [Found([], None)] * len(batch)
        groups: dict[Settings, list[int]] = {}
        for number, one in enumerate(batch):
            if one.eligible_N.any():
                groups.setdefault(one.settings, []).append(number)
        focus = self.focus([batch[number].request.focus for mine in groups.values() for number in mine])
        for settings, numbers in groups.items():
            found = self._answer_group(settings, [batch[number] for number in numbers], focus)
            for number, what in zip(numbers, found, strict=True):
                out[number] = what
        return out

    def _answer_group(
        self, settings: Settings, group: Sequence[Prepared], focus: Mapping[str, np.ndarray]
    ) -> list[Found]:
        import torch

        from sigma_core.generation.explain import explain

        recommender = self._variant(settings)
        eligible = torch.from_numpy(np.stack([one.eligible_N for one in group])).to(recommender.device)
        with torch.inference_mode():
            found = recommender.beam(
                [one.context for one in group], [[one.request] for one in group], focus, eligible
            )
            collapse = recommender.config.collapse_text_groups
            lists = recommender.answer(found, eligible, max(one.n for one in group), collapse)
            why: Iterable[Any] = (
                explain(recommender, found, eligible) if settings.explain else [None] * len(group)
            )
        nothing = np.zeros(len(group), dtype=np.int64)
        tokens = found.tokens_B if found.tokens_B is not None else nothing
        kept = found.kept_B if found.kept_B is not None else nothing
        sizes = zip(tokens.tolist(), kept.tolist(), strict=True)
        return [
            Found(ranked[: one.n], part, *size)
            for one, ranked, part, size in zip(group, lists, why, sizes, strict=True)
        ]

    def _make_variant(self, settings: Settings) -> "Recommender":
        from sigma_core.generation.explain import with_settings

        return with_settings(
            self.engine.recommender,
            settings.num_prefixes,
            settings.items_per_prefix,
            settings.temperature,
            settings.prefix_mass,
        )

    def _vectors(self, texts: list[str]) -> np.ndarray:
        """Match vectors of a few texts, in batches as small as they are: up to the last bits those of the artifacts."""
        return self.engine.encoder.match_vectors(texts, few=True)

    def focus(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Match vectors of what the texts stand for; the last `MAX_FOCUS` are remembered."""
        wanted = {aspect for text in texts for aspect in aspects_of(text)}
        with self._focus_lock:
            new = sorted(wanted - self._focus.keys())
            if new:
                self._focus.update(zip(new, self._vectors(new), strict=True))
            found = {text: self._focus[text] for text in wanted}
            for text in wanted:
                self._focus.move_to_end(text)
            while len(self._focus) > MAX_FOCUS:
                self._focus.popitem(last=False)
        return found

    # ----------------------------------------------------------------------------- without a model
    def fall_back(self, one: Prepared) -> "tuple[str, list[Recommendation]]":
        """A prepared list that obeys the request's filters: of U2I, else of popularity; and which it is.

        A list of U2I that the filters or its length leave short goes on with what is popular.
        """
        if one.user_id is not None:
            tasks = (one.task, *self.config.serving.u2i_tasks)
            for task in dict.fromkeys(tasks):
                kept = [r for r in self.prepared_list(one.user_id, task) if one.eligible_N[r.row]]
                if kept:
                    more = self.most_popular(one.eligible_N, one.n - len(kept), [r.row for r in kept])
                    return "u2i", [*kept[: one.n], *more]
        return "popularity", self.most_popular(one.eligible_N, one.n)

    def most_popular(
        self, eligible_N: np.ndarray, n: int, listed: Sequence[int] = ()
    ) -> "list[Recommendation]":
        """The eligible items most sold in the last four weeks, one of a text group, of none that `listed` rows are of."""
        from sigma_core.generation.recommender import Recommendation

        rows = self._groups.first(self.popular, max(n, 0), eligible_N, listed)
        return [Recommendation(row, float(self.popularity[row]), (), 0.0) for row in rows]

    # ------------------------------------------------------------------------------- items to items
    def similar(self, item_id: str, n: int) -> list[tuple[int, float]]:
        """Rows and cosines of the items nearest in grounded text (meaning and behaviour, for new items too), without
        the item and what reads the same.

        Raises:
            KeyError: no such item in the day's catalog.
        """
        row = self.rows[item_id]
        cosine = self.text_vectors @ self.text_vectors[row]
        cosine[self._groups.number_N == self._groups.number_N[row]] = -np.inf
        return self._top(cosine, n)

    def search(self, vector: np.ndarray, n: int) -> list[tuple[int, float]]:
        """Rows and cosines of the items whose grounded text is nearest to the query's match vector."""
        asked = for_search(vector, len(vector) - self.engine.encoder.lexical.width)
        return self._top(self.text_vectors @ (asked / np.linalg.norm(asked)), n)

    def _top(self, cosine: np.ndarray, n: int) -> list[tuple[int, float]]:
        return [(row, float(cosine[row])) for row in self._groups.best(cosine, n)]


def _offsets(lists: pl.DataFrame) -> dict[tuple[str, str], tuple[int, int]]:
    """Where each (user, task) lies in a frame whose rows of one list stand together."""
    keys = lists.select(c.USER_ID, c.TASK).with_row_index("row")
    spans = keys.group_by(c.USER_ID, c.TASK).agg(pl.col("row").min().alias("first"), pl.len().alias("rows"))
    return {(user, task): (first, first + rows) for user, task, first, rows in spans.iter_rows()}
