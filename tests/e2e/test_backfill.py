"""Many days in one command: a bad one stops no other, and the same command goes on where it ended."""

import shutil
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from sigma_core import columns as c
from tests.e2e.slice import digests, sigma

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BAD = date(2024, 10, 26)
RANGE = ("--from", "2024-10-26", "--to", "2024-10-28")


def of_day(root: Path, day: str) -> dict[str, str]:
    return {key: digest for key, digest in digests(root).items() if key.endswith(day)}


def test_a_bad_day_stops_no_other_and_the_same_command_goes_on(
    made: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    root, folder = tmp_path / "root", tmp_path / "data"
    shutil.copytree(made[0], root)
    shutil.copytree(data, folder)
    (root / "root.json").write_text((root / "root.json").read_text().replace(str(data), str(folder)))
    events = pl.read_parquet(folder / "events.parquet")
    broken = (pl.col(c.EVENT_TIME).dt.date() == BAD) & (pl.int_range(pl.len()) % 10 != 0)
    spoiled = events.with_columns(pl.when(broken).then(0.0).otherwise(c.QUANTITY).alias(c.QUANTITY))
    spoiled.write_parquet(folder / "events.parquet")
    before = of_day(root, "2024-10-28")

    said = sigma("materialize", "--root", str(root), *RANGE, code=1).stdout.splitlines()
    assert "interaction_events[2024-10-26]" in said[0], "the bad day names its check"
    assert "most_lines_usable" in said[0] or "refused" in said[0]
    assert "interaction_events[2024-10-26]" in said[1], "its follower needs the catalog of the day before"
    assert "NOT MADE" not in said[2], "the day after reads it in windows alone, which may miss a day"
    assert said[3].startswith("2 of 3 days could not be made")
    assert of_day(root, "2024-10-28").keys() == before.keys()
    assert of_day(root, "2024-10-28") != before, "made again without the bad day"
    assert not [
        key
        for key in digests(root)
        if key.startswith(("item_catalog", "user_to_item_index")) and key.endswith("26")
    ]

    events.write_parquet(folder / "events.parquet")
    said = sigma("materialize", "--root", str(root), *RANGE).stdout.splitlines()
    assert said[-1] == "all 3 days are there"
    served = (
        "promoted_model",
        "user_to_item_index",
    )  # who serves depends on who served before: the gate's history
    now = of_day(root, "2024-10-28")
    for key in before:
        assert key.startswith(served) or now[key] == before[key], (
            "the correction made again what had been touched"
        )
    assert {f"user_to_item_index/2024-10-{day}" for day in (26, 27, 28)} <= digests(root).keys()
    said = sigma("materialize", "--root", str(root), *RANGE).stdout.splitlines()
    assert all("  0 made" in line for line in said[:3]), "good partitions are not made again"


def test_a_range_that_cannot_be_made_runs_nothing(made: tuple[Path, str]) -> None:
    root = made[0]
    before = digests(root)
    done = sigma("materialize", "--root", str(root), "--from", "2024-10-28", "--to", "2030-01-01", code=1)
    assert "outside the data" in done.stderr
    done = sigma("materialize", "--root", str(root), "--from", "2024-10-28", "--to", "2024-10-27", code=1)
    assert "--from 2024-10-28 is after --to 2024-10-27" in done.stderr
    assert (
        "--to DATE for many"
        in sigma("materialize", "--root", str(root), "--from", "2024-10-28", code=1).stderr
    )
    assert digests(root) == before
