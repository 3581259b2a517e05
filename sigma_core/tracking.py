"""What a training stage tells the outside world while it runs: metrics to a tracker, steps to a progress callback.

Holds the `Tracker` protocol and the implementation that keeps nothing. W&B and its like live in `sigma_assets`; a core
function takes a `Tracker` and never asks which one it got. Our choice; the paper is silent.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

Progress = Callable[[int, int, str], None]
"""Called with (done, total, text) whenever a long step moves on."""


@runtime_checkable
class Tracker(Protocol):
    """Receiver of a run's figures. One call site per training stage."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures, at a step where there is one."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record a small table under `name`."""

    def close(self) -> None:
        """Finish the run; nothing may be logged after it."""


class NullTracker:
    """A tracker that keeps nothing, so that no caller needs an `if`."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Drop the figures."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Drop the table."""

    def close(self) -> None:
        """Do nothing."""


def no_progress(done: int, total: int, text: str) -> None:
    """A progress callback that shows nothing."""
