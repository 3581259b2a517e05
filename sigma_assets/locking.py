"""The locks of a root: one process at a time writes to it, and the next one learns who is in the way.

Advisory `flock`s on files of the root, so that a killed process never leaves it locked. A verb holds `.lock`, `.lock-steps` and
`.lock-runs`; an open `sigma ui` keeps `.lock` alone, so that an order (rollback, promote) can be carried out beside it. Whatever
runs steps for the UI shares `.lock-runs` for as long as it lives: it may outlive a UI that was killed. Our choice.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final

LOCK_FILE: Final = ".lock"
STEPS_FILE: Final = ".lock-steps"
RUNS_FILE: Final = ".lock-runs"
BINDING_FILE: Final = ".lock-binding"
WORKS_FOR_UI: Final = "SIGMA_WORKS_FOR_UI"  # set in the environment of Dagster's processes by `sigma ui`
UI: Final = "ui"


class LockedError(RuntimeError):
    """Another process is writing to the root."""


@dataclass(frozen=True)
class Held:
    """A root's lock, held.

    Attributes:
        descriptor: of the open lock file; a child that inherits it keeps the root locked for as long as it lives.
        let_orders_in: gives `.lock-steps` back, so that `order_lock` can be had while this lock goes on, and `.lock-runs`, so
            that runs of the UI can share it.
    """

    descriptor: int
    let_orders_in: Callable[[], None]


@contextmanager
def root_lock(root: Path, verb: str) -> Iterator[Held]:
    """Hold the root's lock for the length of the block; the folder is made when missing.

    Raises:
        LockedError: another process holds it; the message names its command, pid and start, and what to do.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _held(root, LOCK_FILE, verb) as handle, ExitStack() as steps:
        steps.enter_context(_held(root, STEPS_FILE, verb))
        steps.enter_context(_held(root, RUNS_FILE, verb, held_by_runs=True))
        yield Held(handle.fileno(), steps.close)


@contextmanager
def order_lock(root: Path, verb: str) -> Iterator[bool]:
    """Hold what an order needs, which an open `sigma ui` leaves free; yields whether nobody else is at the root.

    Where somebody is (False), runs of the UI may be going on: leave them and their temporary files alone.

    Raises:
        LockedError: another verb is at work, or the UI is just starting.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _held(root, STEPS_FILE, verb), ExitStack() as whole:
        alone = True
        try:
            whole.enter_context(_held(root, LOCK_FILE, verb))
            whole.enter_context(_held(root, RUNS_FILE, verb))
        except LockedError:
            alone = False
        yield alone


def share_of_ui(root: Path) -> None:
    """Let this process and its children count as at work on the root until they end, where `sigma ui` started them.

    Raises:
        LockedError: the UI has ended, and a verb is at work on the root meanwhile.
    """
    if os.environ.get(WORKS_FOR_UI) and root not in _shares:
        handle = (root / RUNS_FILE).open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with handle:
                handle.seek(0)
                raise LockedError(_in_the_way(root, handle.read())) from None
        handle.truncate(0)  # whoever was named here is gone
        _shares[root] = handle


_shares: dict[Path, IO[str]] = {}


@contextmanager
def binding_lock(root: Path) -> Iterator[None]:
    """Wait for one's turn to read, change and write `root.json`: sensors of one UI run beside each other."""
    with (root / BINDING_FILE).open("a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _held(root: Path, name: str, verb: str, *, held_by_runs: bool = False) -> Iterator[IO[str]]:
    with (root / name).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            text = handle.read()
            if held_by_runs and not text:
                raise LockedError(_OUTLIVED.format(root=root)) from None
            raise LockedError(_in_the_way(root, text)) from None
        handle.truncate(0)
        json.dump(
            {
                "pid": os.getpid(),
                "verb": verb,
                "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            },
            handle,
        )
        handle.flush()
        try:
            yield handle
        finally:
            handle.truncate(0)


_OUTLIVED: Final = "{root} is in use by a run of `sigma ui`, which has ended before it. Wait for the run to end, or use another --root."


def _in_the_way(root: Path, text: str) -> str:
    try:
        values = json.loads(text)
        holder = f"`sigma {values['verb']}` (process {values['pid']}, since {values['since']})"
    except (ValueError, LookupError, TypeError):
        return f"{root} is in use by another process. Wait for it, or use another --root."
    to_do = "Wait for it, or use another --root."
    if values["verb"] == UI:
        to_do = "Close it first (Ctrl-C where it runs), or start the job in the UI; `sigma rollback` and `sigma promote` go beside it."
    return f"{root} is in use by {holder}. {to_do}"
