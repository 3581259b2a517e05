"""Files of one JSON object a line that are only ever appended to: orders, refusals. Knows no meaning of a line. Our choice."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sigma_core.artifacts import ArtifactError

T = TypeVar("T")


def append(path: Path, entry: dict[str, Any]) -> None:
    """Put an entry at the end, on disk when this returns and not there at all when it fails. Hold the root's lock."""
    with path.open("a+b", buffering=0) as file:  # a buffer would write its rest when the file is closed
        end, line = file.seek(0, os.SEEK_END), json.dumps(entry, sort_keys=True).encode() + b"\n"
        file.seek(max(end - 1, 0))
        if (
            end and file.read(1) != b"\n"
        ):  # an editor left it out: this entry would become part of the one before
            line = b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), end)
            raise type(error)(error.errno, error.strerror, str(path)) from error


def entries(path: Path, make: Callable[..., T], what: str) -> list[T]:
    """`make(**entry)` of every line, oldest first; none where there is no file.

    Raises:
        ArtifactError: a line is no `what` ("order"); the message names it.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            found.append(make(**json.loads(line)))
        except (TypeError, ValueError, RecursionError) as error:
            raise ArtifactError(
                f"{path}, line {number} is no {what} ({error}); mend or remove it."
            ) from error
    return found
