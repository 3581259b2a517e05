"""Inputs of many partitions: `Window`, and how much of one may be missing.

A reader of one day refuses a missing or failed partition, naming the check; a reader of a window goes on without a few of
them, lists them and warns, but never without its own day. Source: architecture.md, rule 4.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import polars as pl

from sigma_assets.periods import SELECT, as_date
from sigma_assets.stages import Read
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactError

MAX_MISSING_SHARE: Final = 0.05
SPARSE: Final = frozenset({"sft_shards"})  # samples: any of them will do


class Window(dict[str, Any]):
    """Partition key -> artifact, oldest first. `missing` names the partitions that should be there and are not."""

    def __init__(self, values: dict[str, Any], missing: Sequence[str] = ()) -> None:
        super().__init__(sorted(values.items()))
        self.missing = list(missing)


def frames_of(*windows: Window, until: date | None = None) -> pl.DataFrame:
    """The tables of all artifacts of the windows in one frame, oldest first. `until` keeps events up to that day.

    Raises:
        ArtifactError: the windows are empty together.
    """
    frames = [artifact.frame for window in windows for artifact in window.values()]
    if not frames:
        raise ArtifactError(
            "no day of events lies in this partition's windows. Make it once the data reach it."
        )
    frame = pl.concat(frames, rechunk=False)
    return frame if until is None else frame.filter(pl.col(c.EVENT_DATE) <= until)


def readable(world: World, read: Read, partition: str) -> tuple[list[str], list[str]]:
    """Which partitions of an input the step of `partition` reads, and which it has to go on without.

    Raises:
        ArtifactError: too much is missing or failed; the message names it and says what to do.
    """
    keys = SELECT[read.window](as_date(partition), world.span)
    present = [key for key in keys if world.manifest(read.asset, key) and not world.failure(read.asset, key)]
    missing = [key for key in keys if key not in present]
    if not missing and (
        keys or read.is_window
    ):  # a window may be empty: early in the data no month is rolled up
        return present, missing
    tolerated = read.is_window and present and partition not in missing
    if tolerated and (read.asset in SPARSE or len(missing) <= MAX_MISSING_SHARE * len(keys)):
        return present, missing
    failures = [failure for key in missing if (failure := world.failure(read.asset, key))]
    where = ", ".join(missing[:3]) or "no partition of it"
    what = failures[0] if failures else f"{where} is not in {world.root}"
    count = f"{len(missing)} of {len(keys)} partitions missing: " if read.is_window else ""
    raise ArtifactError(f"input {read.asset}: {count}{what}. Materialize {read.asset} first.")
