"""The lock of a root: one process at a time writes to it, and the next one learns who is in the way.

An advisory `flock` on `<root>/.lock`, so that a killed process never leaves the root locked. Our choice.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

LOCK_FILE: Final = ".lock"


class LockedError(RuntimeError):
    """Another process is writing to the root."""


@contextmanager
def root_lock(root: Path, verb: str) -> Iterator[None]:
    """Hold the root's lock for the length of the block; the folder is made when missing.

    Raises:
        LockedError: another process holds it; the message names its command, pid and start.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK_FILE).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise LockedError(
                f"{root} is in use by {_holder(handle.read())}. Wait for it, or use another --root."
            ) from None
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
            yield
        finally:
            handle.truncate(0)


def _holder(text: str) -> str:
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        return "another process"
    return f"`sigma {values['verb']}` (process {values['pid']}, since {values['since']})"
