"""Nearline: users with new events get a new context and new lists, minutes or seconds after, exactly as a full recomputation.

A user's context is a function of the set of their events (published history and live ones, each once) and of the served day,
never of the order or the batches in which they came. So a run that is killed and repeated ends where an undisturbed one does.
What the prompt tells grows at its end only (`session_prompt`), so that kept states go on; what the heads read is of now.
Source: paper, nearline serving (behaviour aggregated by the minute, results to a U2I index).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TABLE, ArtifactStore
from sigma_core.config import NearlineConfig
from sigma_core.data.events import POSITIVE_TYPES
from sigma_core.data.sources.base import SourceError
from sigma_core.instruction.collate import NUM_STATS, Prompt, Request, UserContext
from sigma_core.serving.event_files import batches, event_files
from sigma_core.serving.live_context import Taken, live_context, session_prompt
from sigma_core.serving.live_store import LiveEvent, LiveRow, LiveStore, Update, end_of_day, micros

if TYPE_CHECKING:
    from sigma_core.generation.recommender import Recommendation
    from sigma_core.serving.live import LiveDay


class History(Protocol):
    """Where the events of the published day's users are."""

    def __call__(self, user_ids: Sequence[str]) -> Mapping[str, list[LiveEvent]]:
        """Events of each user that count as taking an item, up to the published day."""


class RootHistory:
    """History read from the tables that the day's index was built from, as its manifest names them."""

    def __init__(self, root: Path, day: date) -> None:
        store = ArtifactStore(root)
        lineage = store.manifest("user_to_item_index", day.isoformat())["lineage"]
        names = [key for key in lineage if key.startswith(("interaction_history/", "interaction_events/"))]
        self._files = [root / name / TABLE for name in sorted(names)]
        self._day = day

    def __call__(self, user_ids: Sequence[str]) -> Mapping[str, list[LiveEvent]]:
        """Events of each user up to the day."""
        frame = (
            pl.scan_parquet(self._files)
            .filter(pl.col(c.USER_ID).is_in(list(user_ids)) & (pl.col(c.EVENT_DATE) <= self._day))
            .filter(pl.col(c.EVENT_TYPE).is_in(POSITIVE_TYPES))
            .select(c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT_TYPE, c.SESSION_ID)
            .collect()
        )
        out: dict[str, list[LiveEvent]] = {user: [] for user in user_ids}
        for user, item, time, kind, session in frame.iter_rows():
            out[user].append(LiveEvent(user, item, micros(time), kind, session or ""))
        return out


@dataclass
class Progressed:
    """What a run of nearline did."""

    new: int = 0
    duplicates: int = 0
    refused: int = 0
    refreshed: int = 0
    unread: list[str] = field(default_factory=list)


class Nearline:
    """Takes events in and keeps the lists of their users current.

    Args:
        live: the served day.
        store: where events, contexts and lists are kept; the day's own lists are loaded into it.
        history: events of the published day.
        config: batch sizes.
    """

    def __init__(self, live: "LiveDay", store: LiveStore, history: History, config: NearlineConfig) -> None:
        self.live, self.store, self.history, self.config = live, store, history, config
        live.load_into(store)

    def run(self, path: Path, told: Callable[[str], None] = lambda _: None) -> Progressed:
        """Read what is new at `path` and refresh every due user. A file that cannot be read holds up no other: see `unread`."""
        done = Progressed()
        for file in event_files(path):
            try:
                self._take_in(file, done, told)
            except (SourceError, OSError) as error:  # broken, or somebody is still copying it
                done.unread.append(str(error))
        while refreshed := self.refresh():
            done.refreshed += refreshed
            told(f"{done.refreshed} users refreshed")
        return done

    def _take_in(self, file: Path, done: Progressed, told: Callable[[str], None]) -> None:
        for batch in batches(file, self.store, self.config.batch_events):
            taken = self.store.ingest(batch.events, batch.cursor, batch.refused)
            done.new += taken.new
            done.duplicates += taken.duplicates
            done.refused += taken.refused
            told(f"{file.name}: {taken.new} new events, {taken.duplicates} known, {taken.refused} refused")

    def refresh(self) -> int:
        """Bring at most `batch_users` due users up to date; how many it were."""
        due = self.store.due(self.config.batch_users)
        if not due:
            return 0
        known = self.history([user for user, _ in due])
        states = [self._state(user, known.get(user, ())) for user, _ in due]
        lists = self._lists([state.context for state in states])
        updates = [
            Update(user, since, s.watermark_us, s.num_events, packed_context(s, self.live.item_ids), mine)
            for (user, since), s, mine in zip(due, states, lists, strict=True)
        ]
        self.store.update(updates, self.live.day, self.live.model)
        return len(due)

    def _state(self, user_id: str, known: Iterable[LiveEvent]) -> "_State":
        own = [event for event in self.store.events_of(user_id) if event.type in POSITIVE_TYPES]
        every = {event.key: event for event in (*known, *own)}
        watermark = max([end_of_day(self.live.loaded.day), *(event.time_us for event in every.values())])
        cut = max([self.live.loaded.day, *(event.day for event in every.values())])
        taken = [
            Taken(event.item_id, (cut - event.day).days, float(event.time_us)) for event in every.values()
        ]
        instruction, rows, day = self.live.config.instruction, self.live.rows, self.live.loaded.day
        context = live_context(user_id, self.live.profile_of(user_id), taken, rows, instruction)
        since = [
            Taken(event.item_id, (day - event.day).days, float(event.time_us)) for event in every.values()
        ]
        told = session_prompt(since, rows, instruction, self.config.session_events)
        context = replace(context, prompt=told)
        owned = sorted({event.item_id for event in own})
        return _State(context, owned, watermark, len(own))

    def _lists(self, contexts: Sequence[UserContext]) -> list[dict[str, list[Any]]]:
        """Lists of every configured task, as the daily index makes them."""
        from sigma_core.generation.recommender import Ask
        from sigma_core.instruction.tasks import render

        serving = self.live.config.serving
        asks = [Ask(Request(render(task, 0, {}))) for task in serving.u2i_tasks]
        ranked = self.live.engine.recommender.rank(
            contexts,
            [asks for _ in contexts],
            {},
            serving.u2i_top_n,
            self.live.config.generation.collapse_text_groups,
        )
        width = len(asks)
        return [
            {
                task: packed_list(ranked[number * width + place], self.live.item_ids)
                for place, task in enumerate(serving.u2i_tasks)
            }
            for number in range(len(contexts))
        ]


@dataclass(frozen=True)
class _State:
    context: UserContext
    owned: list[str]  # items of live events
    watermark_us: int
    num_events: int


def packed_list(ranked: "Iterable[Recommendation]", item_ids: Sequence[str]) -> list[Any]:
    """A list as JSON rows: item_id, score, prefix, prefix_probability."""
    return [[item_ids[r.row], r.score, list(r.prefix), r.prefix_probability] for r in ranked]


_PARTS: Final = ("favorite", "recent")


def packed_context(state: _State, item_ids: Sequence[str]) -> dict[str, Any]:
    """A context as JSON, items by id."""
    out: dict[str, Any] = {"owned": state.owned}
    for name, part in (("", state.context), ("told_", state.context.prompt)):
        for kind in _PARTS if part is not None else ():
            out[f"{name}{kind}"] = [item_ids[row] for row in getattr(part, f"{kind}_rows")]
            out[f"{name}{kind}_stats"] = getattr(part, f"{kind}_stats").tolist()
    return out


def unpacked_context(
    user_id: str, profile_text: str, row: LiveRow, rows: Mapping[str, int]
) -> tuple[UserContext, list[str]]:
    """The context of a stored row over an item table, and the items of the user's live events."""
    value = row.value

    def listed(name: str) -> tuple[np.ndarray, np.ndarray]:
        pairs = zip(value[name], value[f"{name}_stats"], strict=True)
        kept = [(rows[item], stats) for item, stats in pairs if item in rows]
        return (
            np.asarray([at for at, _ in kept], dtype=np.int64),
            np.asarray([stats for _, stats in kept], dtype=np.float32).reshape(-1, NUM_STATS),
        )

    told = Prompt(*listed("told_favorite"), *listed("told_recent")) if "told_recent" in value else None
    context = UserContext(user_id, profile_text, *listed("recent"), *listed("favorite"), told)
    return context, [item for item in value["owned"] if item in rows]
