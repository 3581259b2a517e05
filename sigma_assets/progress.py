"""What a person sees while steps run: a line a step, and a moving bar where the terminal allows one.

Holds the `Reporter` of the command line and the progress callback that assets hand to the core. In the UI, where nobody
holds a terminal, the callback writes to the run's log instead. Everything goes to stderr: stdout belongs to results.
"""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from sigma_core.tracking import Progress

_BAR_EVERY = 0.2  # seconds between two redraws
_LOG_EVERY = 10.0  # seconds between two lines in a run's log


class Reporter:
    """Prints one line a step; between start and end of a step a bar, on a terminal only."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._is_terminal = self.stream.isatty()
        self._head = ""
        self._started = 0.0
        self._drawn = 0.0

    def line(self, text: str) -> None:
        """Print a line of its own."""
        self._erase()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def start(self, head: str) -> None:
        """A step begins; `head` names it."""
        self._head, self._started, self._drawn = head, time.monotonic(), 0.0
        self._draw("")

    def advance(self, done: int, total: int, text: str) -> None:
        """The step moved on: redraw its bar."""
        if time.monotonic() - self._drawn >= _BAR_EVERY or done >= total:
            filled = round(20 * done / max(total, 1))
            self._draw(f"[{'#' * filled}{'.' * (20 - filled)}] {done}/{total} {text}")

    def end(self, tail: str) -> None:
        """The step is over; its line stays, with `tail` behind it."""
        seconds = time.monotonic() - self._started
        self.line(f"{self._head} {seconds:6.1f} s  {tail}".rstrip())

    def _draw(self, text: str) -> None:
        if self._is_terminal:
            self._erase()
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be erased
            self.stream.write(f"{self._head} {text}"[:width])
            self.stream.flush()
            self._drawn = time.monotonic()

    def _erase(self) -> None:
        if self._is_terminal:
            self.stream.write("\r\033[K")


class RunReporter(Reporter):
    """A reporter inside a run: lines go to the run's log, bars to whoever watches the step."""

    def __init__(self, log: Callable[[str], None]) -> None:
        super().__init__()
        self._log, self._progress = log, progress_callback(log)

    def line(self, text: str) -> None:
        """Log the line."""
        self._log(text)

    def advance(self, done: int, total: int, text: str) -> None:
        """The step moved on, under the head of its part."""
        self._progress(done, total, f"{self._head.strip()}: {text}")

    def _draw(self, text: str) -> None:
        """Nothing: a run holds no terminal."""


class _Shown:
    """The reporter of this process, if a command line is watching."""

    reporter: Reporter | None = None


def show_on(reporter: Reporter | None) -> None:
    """Send the progress of assets in this process to `reporter`; None: to the runs' logs."""
    _Shown.reporter = reporter


def progress_callback(log: Callable[[str], None]) -> Progress:
    """The callback for a core function: draws on the process's reporter, else calls `log` every few seconds."""
    if _Shown.reporter is not None:
        return _Shown.reporter.advance
    last = time.monotonic()

    def to_log(done: int, total: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_EVERY or done >= total:
            last = time.monotonic()
            log(f"{done}/{total} {text}")

    return to_log
