"""Timing sides against each other: alternately, medians, and the memory each adds.

Ratios are of medians inside one run. On a machine that others use, processor time with one thread is the steadier clock.
Our choice.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

Clock = Literal["wall", "cpu"]
CLOCKS: Final = {"wall": time.perf_counter, "cpu": time.process_time}
MIB: Final = 1024.0


@dataclass(frozen=True)
class Timing:
    """Seconds of one side's calls, and the memory it added at most, in MiB (none where the system does not tell)."""

    seconds: tuple[float, ...]
    added_mib: float | None

    @property
    def p50(self) -> float:
        """Median seconds of a call."""
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        """95th percentile of the seconds of a call; of few calls, the slowest."""
        return float(np.quantile(self.seconds, 0.95, method="higher"))


def alternate(
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Clock = "wall",
    rare: Mapping[str, int] | None = None,
) -> dict[str, Timing]:
    """Calls all sides once to warm up, then `rounds` times in turn; a side in `rare` only so many times."""
    tick = CLOCKS[clock]
    memory = {name: added_memory(side) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            if number < (rare or {}).get(name, rounds):
                start = tick()
                side()
                seconds[name].append(tick() - start)
    return {name: Timing(tuple(seconds[name]), memory[name]) for name in sides}


def added_memory(side: Callable[[], Any]) -> float | None:
    """MiB that a call adds at its peak to what the process held before; none where /proc does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
    except OSError:
        side()
        return None
    before = _field(status, "VmRSS")
    side()
    return round(max(0.0, _field(status, "VmHWM") - before) / MIB, 1)


def _field(status: Path, name: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return float(line.split()[1])
