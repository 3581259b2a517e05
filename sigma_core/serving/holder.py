"""The day that is served now, loaded from a root, and its replacement by a newer one while requests go on.

A request keeps the `LiveDay` it began with; the holder only changes what the next one gets. Our choice; the paper is silent.
"""

import logging
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

from sigma_core.artifacts import ArtifactError, ArtifactStore, digest_json
from sigma_core.config import NearlineConfig
from sigma_core.serving.live import LiveDay
from sigma_core.serving.live_store import LiveStore
from sigma_core.serving.nearline import History, Nearline, Progressed, RootHistory
from sigma_core.serving.runtime import RequestError, check_whole, load_recommender, pick_day
from sigma_core.serving.session_cache import FOLDER, SessionCache

LOG = logging.getLogger("sigma.serve")
_DAILY: Final = ("promoted_model", "item_index", "user_to_item_index", "item_catalog")
FIRST_PAUSE: Final = 60.0  # seconds until a day that could not be loaded is tried again; doubled each time
LONGEST_PAUSE: Final = 3600.0


def load_live_day(root: Path, as_of: str | None = None) -> LiveDay:
    """Load a day of a root and answer one cold request, so that the first person waits for nothing.

    Raises:
        RequestError: the day or one of its artifacts is not there, or they do not belong together.
    """
    from sigma_core.grounding.embed import ItemEmbeddings
    from sigma_core.grounding.lexical import unit_rows
    from sigma_core.serving.http.schemas import RecommendRequest

    store = ArtifactStore(root)
    day = pick_day(store, as_of)
    model = published(store, day)
    loaded = load_recommender(root, day)
    try:
        embeddings = store.read(ItemEmbeddings, "item_embeddings", day)
    except ArtifactError as error:
        raise RequestError(str(error)) from error
    check_whole(root, day, loaded.engine.index.item_ids, "item_embeddings", set(embeddings.item_ids))
    vectors = unit_rows(embeddings.match()[embeddings.rows(loaded.engine.index.item_ids)])
    live = LiveDay(loaded, vectors, model)
    live.answer([live.prepare(RecommendRequest(instruction="hello"))])
    return live


def _told(error: Exception) -> str:
    """What went wrong: our own words, or the kind and the place, as words of other errors may hold a user's data."""
    if isinstance(error, RequestError | ArtifactError | OSError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"


def published(store: ArtifactStore, day: str) -> str:
    """Digest of what answers of the day are made from; changes whenever one of the artifacts is published anew."""
    parts = {name: store.manifest(name, day)["digest"] for name in _DAILY}
    return digest_json(parts)[:12]


class Holder:
    """Keeps the served day; `refresh` swaps it when the root has a newer one.

    Args:
        root: where days are published.
        live: the day to begin with.
        as_of: stay with this day; it takes no events.
        store: live events and lists, kept current by `catch_up`; None: no events are taken.
        config: batch sizes of `catch_up`.
        history: where the events of a day's users are; by default the root's own tables.
    """

    def __init__(
        self,
        root: Path,
        live: LiveDay,
        as_of: str | None = None,
        store: LiveStore | None = None,
        config: NearlineConfig | None = None,
        history: Callable[[LiveDay], History] | None = None,
    ) -> None:
        self.root, self.live, self.as_of, self.store = root, live, as_of, store
        self._config = config or NearlineConfig()
        self._history = history or (lambda day: RootHistory(root, day.loaded.day))
        self._nearline = self._nearline_of(live)
        self.swaps = 0
        self._loading = threading.Lock()
        self._refused, self._pause, self._again = "", 0.0, 0.0

    def refresh(self) -> bool:
        """Load and swap when what is published differs from what is served; True after a swap.

        A day that cannot be loaded, whatever the reason (half published, artifacts that do not belong together, a full disk),
        leaves the served one. It is tried again when it is published anew, and after a pause of `FIRST_PAUSE` seconds that doubles
        each time up to `LONGEST_PAUSE`.
        """
        if not self._loading.acquire(blocking=False):
            return False
        wanted = ""
        try:
            store = ArtifactStore(self.root)
            day = pick_day(store, self.as_of)
            wanted = published(store, day)
            if wanted == self.live.model or (wanted == self._refused and monotonic() < self._again):
                return False
            live = load_live_day(self.root, day)
            self._nearline = self._nearline_of(live)
            self.live = live
        except Exception as error:  # noqa: BLE001 whatever is wrong with the newer day, the served one goes on
            self._put_off(wanted)
            LOG.warning("the newly published day cannot be served, the former stays: %s", _told(error))
            return False
        finally:
            self._loading.release()
        self._refused, self._pause = "", 0.0
        self.swaps += 1
        LOG.warning("now serving %s of %s", self.live.model, self.live.day)
        return True

    def _put_off(self, wanted: str) -> None:
        """Do not try this state of the day again for a while."""
        again = bool(wanted) and wanted == self._refused
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if again else FIRST_PAUSE
        self._refused, self._again = wanted, monotonic() + self._pause

    def catch_up(self) -> int:
        """Bring every user with new events up to date; how many it were."""
        done = 0
        while self._nearline is not None and (refreshed := self._nearline.refresh()):
            done += refreshed
        return done

    def take_in(self, events: Path, told: Callable[[str], None]) -> Progressed:
        """Read what is new in the event files and bring their users up to date. Needs a store."""
        assert self._nearline is not None
        return self._nearline.run(events, told)

    def _nearline_of(self, live: LiveDay) -> Nearline | None:
        self._open_session(live)
        if self.store is None:
            return None
        return Nearline(live, self.store, self._history(live), self._config)

    def _open_session(self, live: LiveDay) -> None:
        """Give the day's model a cache of its own; the states of the former one go with it."""
        if not self._config.session_mib:
            return
        folder = self.root / FOLDER if self.store is not None else None
        cache = SessionCache(live.model, self._config.session_mib, folder, self._config.spill_mib)
        live.open_session(cache)
