"""What the routes call: a request in, an answer within its budget out, whatever happens.

Puts together the served day, the micro-batcher and the prepared lists. No HTTP. Our choice; the paper serves from U2I.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from sigma_core.config import HttpConfig
from sigma_core.instruction.price_words import told_unread
from sigma_core.serving.event_files import EventError, read_event
from sigma_core.serving.holder import Holder
from sigma_core.serving.http.batcher import DeadlineError, MicroBatcher, QueueFullError
from sigma_core.serving.http.heap import Trimmer
from sigma_core.serving.http.metrics import Metrics
from sigma_core.serving.http.schemas import (
    EventsAnswer,
    EventsRequest,
    ItemList,
    RecommendRequest,
    RefusedEvent,
)
from sigma_core.serving.http.shown import explained, ranked_items, scored_items, taken_for, told_filters
from sigma_core.serving.live import Found, LiveDay, Prepared
from sigma_core.serving.live_store import LiveEvent
from sigma_core.serving.runtime import RequestError

if TYPE_CHECKING:
    from sigma_core.generation.recommender import Recommendation

LOG = logging.getLogger("sigma.serve")
_UNROUTED = 2.0  # a confidence that no route has
_NOTES = {
    "deadline": "the budget was spent before the model answered",
    "queue": "too many requests were waiting for the model",
    "model": "the model failed on this request",
    "empty": "no item passes the filters",
}


class Service:
    """Answers requests from the day its holder serves now."""

    def __init__(self, holder: Holder, config: HttpConfig, metrics: Metrics) -> None:
        self.holder, self.config, self.metrics = holder, config, metrics
        self.wake = asyncio.Event()  # new events are there
        self._inside = 0  # requests that a thread or the model has taken on
        self.batcher: MicroBatcher[Prepared | tuple[LiveDay, str], Found | list[tuple[int, float]]]
        self.batcher = MicroBatcher(
            self._run, config.max_batch, config.batch_wait_ms / 1000, config.max_queue, metrics.batch.observe
        )

    @property
    def ready(self) -> bool:
        """True when requests are answered."""
        return self.batcher.running

    @property
    def inside(self) -> int:
        """Requests for recommendations that a thread or the model has taken on."""
        return self._inside

    def _run(self, jobs: Sequence[Prepared | tuple[LiveDay, str]]) -> list[Found | list[tuple[int, float]]]:
        """One batch: recommendations by day, searches one by one. Runs in the model's thread."""
        out: list[Found | list[tuple[int, float]]] = [[]] * len(jobs)
        by_day: dict[int, list[int]] = {}
        for number, job in enumerate(jobs):
            if isinstance(job, Prepared):
                by_day.setdefault(id(job.day), []).append(number)
            else:
                live, query = job
                out[number] = live.search(live.focus([query])[query], _MOST_FOUND)
        for numbers in by_day.values():
            mine = [job for number in numbers if isinstance(job := jobs[number], Prepared)]
            for number, found in zip(numbers, mine[0].day.answer(mine), strict=True):
                out[number] = found
        return out

    async def recommend(self, wish: RecommendRequest) -> dict[str, Any]:
        """The answer (fields of `schemas.Answer`), from the model when it makes it within the budget.

        Once `max_queue` requests and a batch are inside, counted from their arrival, one more is answered from the prepared lists
        before the event loop reads another: it waits in no queue, so that what waits is bounded however fast requests come. Its free
        words are taken for no task, which the encoder would have to read.

        Raises:
            RequestError: the request names something that does not exist, or lacks what its task needs.
        """
        start = time.monotonic()
        if self._inside >= self.config.max_queue + self.config.max_batch:
            prepared = self.holder.live.prepare(wish, _UNROUTED)
            if prepared.eligible_N.any():
                return self._told(
                    wish, prepared, start, None, _NOTES["queue"], prepared.day.fall_back(prepared)
                )
            return self._told(wish, prepared, start)
        self._inside += 1
        try:
            return await self._taken_on(wish, start)
        finally:
            self._inside -= 1

    async def _taken_on(self, wish: RecommendRequest, start: float) -> dict[str, Any]:
        """The answer of a request that may wait for a thread and for the model."""
        budget = (wish.deadline_ms or self.config.deadline_ms) / 1000
        prepared = await run_in_threadpool(self.holder.live.prepare, wish, self.config.route_confidence)
        if not prepared.eligible_N.any():
            return self._told(wish, prepared, start)
        found, note = await self._by_model(prepared, budget - (time.monotonic() - start))
        if found is None:
            instead = await run_in_threadpool(prepared.day.fall_back, prepared)
            return self._told(wish, prepared, start, None, note, instead)
        return self._told(wish, prepared, start, found)

    def _told(
        self,
        wish: RecommendRequest,
        prepared: Prepared,
        start: float,
        found: Found | None = None,
        note: str = "",
        instead: "tuple[str, list[Recommendation]] | None" = None,
    ) -> dict[str, Any]:
        """The fields of `schemas.Answer`: what the model found, or a list instead of it; without both no item was eligible."""
        served_by, ranked = instead or ("model", found.ranked if found else [])
        if found is None and instead is None:
            note = f"{_NOTES['empty']}: {told_filters(wish, prepared)}; loosen one"
        if wish.filters.min_price is None and wish.filters.max_price is None:
            note = "; ".join(filter(None, (note, told_unread(prepared.request.instruction))))
        self.metrics.served.labels(served_by).inc()
        why = found.explanation if found else None
        return {
            "served_by": served_by,
            "user_known": prepared.known,
            "task": prepared.task,
            "instruction": prepared.request.instruction,
            "focus": prepared.request.focus,
            "understood": prepared.understood,
            "taken_for": taken_for(prepared),
            "day": prepared.day.day,
            "model": prepared.day.model,
            "milliseconds": round((time.monotonic() - start) * 1000, 2),
            "items": ranked_items(prepared.day, ranked, prepared.owned),
            "prompt_tokens": found.tokens if found and found.tokens else None,
            "cached_tokens": found.kept if found and found.tokens else None,
            "explanation": explained(prepared.day, prepared, why) if why else None,
            "note": note,
        }

    async def _by_model(self, prepared: Prepared, budget: float) -> tuple[Found | None, str]:
        """What the model found, or None and why not."""
        try:
            found = await self.batcher.submit(prepared, budget)
        except DeadlineError:
            return None, _NOTES["deadline"]
        except QueueFullError:
            return None, _NOTES["queue"]
        except Exception as error:  # noqa: BLE001 a prepared list is better than no answer; the log has the kind
            LOG.error("the model failed: %s", type(error).__name__)
            return None, _NOTES["model"]
        assert isinstance(found, Found)
        return found, ""

    def prepared_list(self, user_id: str, task: str, n: int) -> dict[str, Any]:
        """The user's list of the U2I index (fields of `schemas.Answer`); popularity for a user who has none.

        Raises:
            RequestError: no list is kept for that task.
        """
        start = time.monotonic()
        live = self.holder.live
        kept = live.config.serving.u2i_tasks
        if task not in kept:
            raise RequestError(f"lists are kept for {', '.join(kept)}; for other tasks POST /v1/recommend.")
        known = live.is_known(user_id)
        ranked = live.prepared_list(user_id, task, n)
        served_by = "u2i" if ranked else "popularity"
        if not ranked:
            ranked = live.most_popular(live.everything_N, n)
        self.metrics.served.labels(served_by).inc()
        return {
            "served_by": served_by,
            "user_known": known,
            "task": task,
            "instruction": "",
            "focus": "",
            "understood": (),
            "taken_for": None,
            "day": live.day,
            "model": live.model,
            "milliseconds": round((time.monotonic() - start) * 1000, 3),
            "items": ranked_items(live, ranked, live.owned_rows(user_id) if known else frozenset()),
            "prompt_tokens": None,
            "cached_tokens": None,
            "explanation": None,
            "note": "",
        }

    async def search(self, query: str, n: int) -> ItemList:
        """Items whose words mean what the query means.

        Raises:
            DeadlineError, QueueFullError: the encoder was not free in time.
        """
        live = self.holder.live
        found = await self.batcher.submit((live, query), self.config.deadline_ms / 1000)
        assert isinstance(found, list)
        return ItemList(day=live.day, items=scored_items(live, found[:n]))

    def similar(self, item_id: str, n: int) -> ItemList:
        """Items like this one.

        Raises:
            KeyError: no such item.
        """
        live = self.holder.live
        return ItemList(day=live.day, items=scored_items(live, live.similar(item_id, n)))

    def take(self, batch: EventsRequest) -> EventsAnswer | None:
        """Store events durably; None when this server takes none. Their users' lists follow."""
        store = self.holder.store
        if store is None:
            return None
        events: list[LiveEvent] = []
        refused: list[RefusedEvent] = []
        for position, event in enumerate(batch.events):
            try:
                events.append(read_event(event.model_dump()))
            except EventError as error:
                refused.append(RefusedEvent(position=position, reason=str(error)))
        taken = store.ingest(events)
        self.metrics.events.labels("new").inc(taken.new)
        self.metrics.events.labels("known").inc(taken.duplicates)
        self.metrics.events.labels("refused").inc(len(refused))
        return EventsAnswer(accepted=taken.new, known=taken.duplicates, refused=refused)

    async def keep_current(self, seconds: float) -> None:
        """Refresh users with new events, for ever; a failure is logged and tried again.

        One thread does it all, so that its memory and its connection to the store are one.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="nearline") as thread:
            await self._keep_current(seconds, thread)

    async def _keep_current(self, seconds: float, thread: ThreadPoolExecutor) -> None:
        loop, trim = asyncio.get_running_loop(), Trimmer()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), seconds)
            self.wake.clear()
            try:
                refreshed = await loop.run_in_executor(thread, self.holder.catch_up)
                if refreshed:
                    await loop.run_in_executor(thread, trim)
            except Exception as error:  # noqa: BLE001 the next round tries again
                LOG.error("nearline failed: %s", type(error).__name__)
                await asyncio.sleep(seconds)
                continue
            if refreshed:
                self.metrics.refreshed.inc(refreshed)


_MOST_FOUND = 100
