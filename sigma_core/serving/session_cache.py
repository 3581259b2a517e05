"""SessionCache: users' trunk states in memory within a budget, the least recently used ones on disk.

Holds keeping, forgetting and spilling; what states are and when they still fit is `generation/session_states.py`. Bound to
the digest of what is served: a promoted model begins with an empty cache, and the files of others are removed. Spilled
states are safetensors, each file written whole; any of them may vanish at any time and then costs a recomputation.
Source: paper, nearline serving (cached KV states); budgets and spilling are our choice.
"""

import hashlib
import shutil
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sigma_core.generation.session_states import TrunkStates

FOLDER: Final = Path("live") / "sessions"  # under the root
MIB: Final = 2**20
_SUFFIX: Final = ".safetensors"


@dataclass
class SessionCounts:
    """What happened since the cache was made."""

    hits: int = 0
    misses: int = 0
    spilled: int = 0
    read_back: int = 0


class SessionCache:
    """States by user id, at most `budget_mib` in memory and `spill_mib` on disk. Safe to use from several threads.

    Args:
        model: digest of what is served; states of another one are never returned.
        budget_mib: memory for states; the least recently used leave first.
        folder: where states that leave memory go, in a subfolder of the model; None: nowhere.
        spill_mib: disk for them; the oldest files leave first.
    """

    def __init__(
        self, model: str, budget_mib: float, folder: Path | None = None, spill_mib: float = 0.0
    ) -> None:
        self.model, self.counts = model, SessionCounts()
        self._budget, self._spill_budget = int(budget_mib * MIB), int(spill_mib * MIB)
        self._states: OrderedDict[str, TrunkStates] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()
        self._folder = folder / _name(model) if folder is not None and spill_mib else None
        self._files: OrderedDict[Path, int] = OrderedDict()
        if folder is not None and folder.is_dir():
            for other in folder.iterdir():
                if other != self._folder:
                    shutil.rmtree(other, ignore_errors=True)
        if self._folder is not None and self._folder.is_dir():
            known = ((path.stat().st_mtime_ns, path) for path in self._folder.glob(f"[!.]*{_SUFFIX}"))
            self._files = OrderedDict((path, path.stat().st_size) for _, path in sorted(known))

    def __len__(self) -> int:
        return len(self._states)

    @property
    def nbytes(self) -> int:
        """Memory the states take."""
        return self._bytes

    def get(self, user_id: str) -> TrunkStates | None:
        """What is kept of the user, in memory or on disk; it counts as used now."""
        with self._lock:
            found = self._states.get(user_id)
            if found is not None:
                self._states.move_to_end(user_id)
            elif (found := self._read(user_id)) is not None:
                self.counts.read_back += 1
                self._keep(user_id, found)
            if found is None:
                self.counts.misses += 1
            else:
                self.counts.hits += 1
            return found

    def put(self, user_id: str, states: TrunkStates) -> None:
        """Keep the states in place of the user's former ones; others leave when the budget is spent."""
        with self._lock:
            path = self._path(user_id)
            if path is not None and self._files.pop(path, None) is not None:
                path.unlink(missing_ok=True)
            self._keep(user_id, states)

    def _keep(self, user_id: str, states: TrunkStates) -> None:
        former = self._states.pop(user_id, None)
        self._bytes -= former.nbytes if former else 0
        self._states[user_id] = states
        self._bytes += states.nbytes
        while self._bytes > self._budget:
            gone, old = self._states.popitem(last=False)
            self._bytes -= old.nbytes
            self._spill(gone, old)

    # ---------------------------------------------------------------------------------------- disk
    def _path(self, user_id: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{_name(user_id)}{_SUFFIX}"

    def _spill(self, user_id: str, states: TrunkStates) -> None:
        from safetensors.numpy import save_file

        path = self._path(user_id)
        if path is None or states.nbytes > self._spill_budget:
            return
        if path in self._files:  # read back and not changed since
            self._files.move_to_end(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            save_file(states.arrays(), tmp)
            tmp.replace(path)
        except OSError:  # a full disk costs a recomputation
            return
        finally:
            tmp.unlink(missing_ok=True)
        self._files[path] = path.stat().st_size
        self.counts.spilled += 1
        while sum(self._files.values()) > self._spill_budget:
            self._files.popitem(last=False)[0].unlink(missing_ok=True)

    def _read(self, user_id: str) -> TrunkStates | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self._path(user_id)
        if path is None or not path.exists():
            return None
        try:
            found = load_file(path)
            tokens, stats = found["tokens_TK"], found["stats_TS"]
            return TrunkStates(tokens, stats, found["keys_GHTW"], found["values_GHTW"])
        except (SafetensorError, OSError, KeyError, ValueError):
            self._files.pop(path, None)
            path.unlink(missing_ok=True)
            return None


def _name(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()
