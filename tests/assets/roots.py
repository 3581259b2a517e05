"""Small roots for the tests of this folder: bound to the tabular files of `small_source`, with the toy profile."""

from datetime import date
from pathlib import Path

import polars as pl

from sigma_assets.binding import Request, bind
from sigma_assets.progress import Reporter
from sigma_assets.world import World
from sigma_core import columns as c
from tests.toy_world import FrameSource, small_source, write_tabular

SMALL_DAY = date(2024, 10, 28)
SMALL_SETTINGS = ("data.left_censored_days=14", "data.min_category_items=5", "runtime.threads=1")


def small_request(path: Path) -> Request:
    return Request(source="tabular", path=path, profile="toy", settings=SMALL_SETTINGS)


def small_world(tmp_path: Path, source: FrameSource | None = None) -> World:
    """A bound root without artifacts."""
    data = write_tabular(source or small_source(num_users=20, num_items=40, days=45), tmp_path / "data")
    root = tmp_path / "root"
    return World(root, bind(root, small_request(data))[0])


def with_broken_day(source: FrameSource, day: date) -> FrameSource:
    """The source with nine tenths of a day's lines in quarantine: the day breaks its contract."""
    broken = (pl.col(c.EVENT_TIME).dt.date() == day) & (pl.col(c.SOURCE_ROW) % 10 != 0)
    source.raw = source.raw.with_columns(pl.when(broken).then(0.0).otherwise(c.QUANTITY).alias(c.QUANTITY))
    return source


class Quiet(Reporter):
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)
