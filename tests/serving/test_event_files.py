import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sigma_core.data.sources.base import SourceError
from sigma_core.serving.event_files import EventError, batches, event_files, read_event
from sigma_core.serving.live_store import LiveStore, micros

GOOD = {"user_id": "u0", "item_id": "i00", "event_time": "2024-10-29T08:00:00"}
NOW = datetime(2024, 11, 1)


def line(n: int, **more: Any) -> str:
    return json.dumps({**GOOD, "event_time": f"2024-10-29T08:{n:02}:00", **more}) + "\n"


def take(file: Path, store: LiveStore, size: int = 2) -> tuple[int, int]:
    """New events and refusals of what the file holds beyond its cursor."""
    new = refused = 0
    for batch in batches(file, store, size):
        taken = store.ingest(batch.events, batch.cursor, batch.refused)
        new, refused = new + taken.new, refused + taken.refused
    return new, refused


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user_id": None}, "null_user"),
        ({"user_id": ""}, "null_user"),
        ({"item_id": ["i00"]}, "null_item"),
        ({"item_id": "x" * 129}, "null_item"),
        ({"event_time": "yesterday"}, "bad_time"),
        ({"event_time": 5}, "bad_time"),
        ({"event_time": "2024-11-03T00:00:00"}, "future_time"),
        ({"event_type": "theft"}, "bad_type"),
        ({"quantity": 0}, "nonpositive_quantity"),
        ({"quantity": "many"}, "nonpositive_quantity"),
        ({"user_id": "u\ud800"}, "bad_text"),
        ({"item_id": "i\udfff"}, "bad_text"),
        ({"session_id": "\ud800"}, "bad_text"),
    ],
)
def test_a_row_that_is_no_event_is_refused_with_a_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(EventError, match=reason):
        read_event({**GOOD, **row}, NOW)


def test_times_with_an_offset_become_utc_and_numbers_may_be_ids() -> None:
    event = read_event({**GOOD, "user_id": 7, "event_time": "2024-10-29T08:00:00+02:00"}, NOW)
    assert (event.user_id, event.time_us) == ("7", micros(datetime(2024, 10, 29, 6)))


def test_a_growing_file_is_read_from_where_it_was(tmp_path: Path) -> None:
    file, store = tmp_path / "a.jsonl", LiveStore(tmp_path / "s")
    file.write_text(line(1) + "nonsense\n" + line(2) + "[1]\n" + line(3)[:20])
    assert take(file, store) == (2, 2)
    assert take(file, store) == (0, 0)
    file.write_text(line(1) + "nonsense\n" + line(2) + "[1]\n" + line(3) + line(4))
    assert next(batches(file, store, 9)).cursor.position == file.stat().st_size
    assert take(file, store) == (2, 0)
    assert store.counts()["refused"] == 2


def test_a_replaced_or_cut_file_is_read_again_and_nothing_counts_twice(tmp_path: Path) -> None:
    file, store = tmp_path / "a.jsonl", LiveStore(tmp_path / "s")
    file.write_text(line(1) + line(2))
    take(file, store)
    file.write_text(line(3) + line(1) + line(4))
    assert take(file, store) == (2, 0)
    file.write_text(line(3))
    assert take(file, store) == (0, 0)
    assert store.counts()["events"] == 4


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    file, store = tmp_path / "a.parquet", LiveStore(tmp_path / "s")
    times = [datetime(2024, 10, 29, 8, n) for n in range(5)]
    pl.DataFrame({"user_id": ["u0"] * 4 + [None], "item_id": ["i00"] * 5, "event_time": times}).write_parquet(
        file
    )
    assert [len(b.events) + len(b.refused) for b in batches(file, store, 2)] == [2, 2, 1]
    assert take(file, store) == (4, 1)
    assert take(file, store) == (0, 0)


def test_a_folder_is_its_event_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", ".c.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in event_files(tmp_path)] == ["a.parquet", "b.jsonl"]
    with pytest.raises(SourceError, match="nowhere"):
        event_files(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="jsonl"):
        event_files(tmp_path / "notes.txt")


def test_a_line_that_no_store_can_hold_is_refused_and_the_file_goes_on(tmp_path: Path) -> None:
    file, store = tmp_path / "a.jsonl", LiveStore(tmp_path / "s")
    file.write_text(line(1) + line(2, user_id="u\ud800") + line(3, session_id="\ud800") + line(4))
    assert take(file, store) == (2, 2)
    assert take(file, store) == (0, 0)


def test_a_time_of_no_calendar_costs_its_own_row(tmp_path: Path) -> None:
    times = pl.Series([2**62, micros(datetime(2024, 10, 29))]).cast(pl.Datetime("us"))
    frame = pl.DataFrame({"user_id": "u", "item_id": "i", "event_time": times})
    frame.write_parquet(tmp_path / "a.parquet")
    assert take(tmp_path / "a.parquet", LiveStore(tmp_path / "live.sqlite")) == (1, 1)


def test_a_parquet_file_without_the_columns_is_no_file_without_events(tmp_path: Path) -> None:
    pl.DataFrame({"user": ["u"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet: column user_id, item_id, event_time is missing"):
        take(tmp_path / "a.parquet", LiveStore(tmp_path / "live.sqlite"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1, half of it")
    with pytest.raises(SourceError, match=r"b.parquet is not a readable parquet table"):
        take(tmp_path / "b.parquet", LiveStore(tmp_path / "live.sqlite"))
