"""Files that nobody should write and somebody will: each ends as rows with a reason, or as one error that names the file."""

import gzip
import random
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from sigma_core.data.events import clean_events
from sigma_core.data.sources import SourceError, open_source
from sigma_core.data.sources.amazon import Amazon
from sigma_core.data.sources.tabular import Tabular

ITEMS = b"item_id,title\na,A\nb,B\n"
HEAD = b"user_id,item_id,event_time,quantity,price\n"
DAY = datetime(2024, 1, 1)


def tabular(folder: Path, events: bytes | pl.DataFrame = HEAD, items: bytes = ITEMS) -> Tabular:
    if isinstance(events, bytes):
        (folder / "events.csv").write_bytes(events)
    else:
        events.write_parquet(folder / "events.parquet")
    (folder / "items.csv").write_bytes(items)
    return Tabular(folder)


def test_no_number_is_no_price_and_no_quantity(tmp_path: Path) -> None:
    """NaN passes `quantity <= 0` and makes a median NaN; in Parquet it is often what a missing value became."""
    rows = HEAD + b"u,a,2024-01-01,NaN,inf\nu,b,2024-01-01,-inf,NaN\nu,a,2024-01-02,2,3\n"
    known = [(None, None), (None, None), (2.0, 3.0)]
    assert tabular(tmp_path, rows).events().select("quantity", "price").rows() == known


def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"events.csv: column item_id is there twice"):
        tabular(tmp_path, b"user_id,item_id,event_time,item_id\nu,a,2024-01-01,b\n").events()


def test_columns_that_nothing_reads_may_lack_a_name_or_come_twice(tmp_path: Path) -> None:
    """pandas writes its row numbers as a column without a name, spreadsheets empty columns at the end."""
    rows = b",user_id,item_id,event_time,note,note,,\n0,u,a,2024-01-01,x,y,,\n"
    found = tabular(tmp_path, rows, b",item_id,title\n0,a,A\n")
    assert found.events()["item_id"].to_list() == found.products()["item_id"].to_list() == ["a"]
    (tmp_path / "users.csv").write_bytes(b"user_id,pet,pet\nu,cat,dog\n")
    with pytest.raises(SourceError, match=r"users.csv: column pet is there twice"):
        Tabular(tmp_path).users()


def test_text_of_another_encoding_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"items.csv .* its text is UTF-16; save it as UTF-8"):
        tabular(tmp_path, items=ITEMS.decode().encode("utf-16")).products()


def test_a_header_of_many_columns_makes_no_message_of_megabytes(tmp_path: Path) -> None:
    wide = b",".join(b"c%d" % number for number in range(3000)) + b"\n"
    with pytest.raises(SourceError, match=r"and 2,970 more") as told:
        tabular(tmp_path, wide).events()
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize("unit", ["ms", "us"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
@pytest.mark.parametrize("far", [2**63 - 1, -(2**63) + 1, 2**62])
def test_a_time_that_no_calendar_has_costs_its_own_row(
    tmp_path: Path, unit: str, zone: str | None, far: int
) -> None:
    good = {"ms": 10**3, "us": 10**6}[unit] * int((DAY - datetime(1970, 1, 1)).total_seconds())
    times = pl.Series([far, good], dtype=pl.Int64).cast(pl.Datetime(unit, zone))
    source = tabular(
        tmp_path, pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "event_time": times})
    )
    accepted, refused = clean_events(source.events(), source.products()["item_id"], datetime(2024, 12, 31))
    assert (accepted.height, refused.height) == (1, 1)


def test_a_date_or_text_of_such_a_time_too(tmp_path: Path) -> None:
    rows = HEAD + b"u,a,-0044-03-15,1,1\nu,a,99999-01-01,1,1\nu,b,2024-01-01,1,1\n"
    assert tabular(tmp_path, rows).date_range() == (date(2024, 1, 1), date(2024, 1, 1))
    (tmp_path / "events.csv").unlink()
    days = pl.Series([2**31 - 1, 19_723], dtype=pl.Int32).cast(pl.Date)
    frame = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "event_time": days})
    assert tabular(tmp_path, frame).events()["event_time"].to_list() == [None, DAY]


def test_lists_and_records_are_no_words(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "event_time": [DAY], "event_type": [["view"]]})
    with pytest.raises(SourceError, match=r"column event_type: List\(String\) arrived; one plain value"):
        tabular(tmp_path, frame).events()
    vectors = pl.DataFrame({"item_id": ["a"], "vector": [["x"]]})
    vectors.write_parquet(tmp_path / "item_id_vectors.parquet")
    with pytest.raises(SourceError, match=r"item_id_vectors.parquet, column vector: List\(String\)"):
        open_source("tabular", tmp_path).id_vectors()


REVIEW = b'{"asin": "a", "reviewerID": "u", "unixReviewTime": 1400000000}\n'


def amazon(folder: Path, more: bytes, meta: bytes = b"") -> Amazon:
    (folder / "reviews.json").write_bytes(REVIEW + more)
    (folder / "meta.json").write_bytes(b'{"asin": "a", "title": "A"}\n' + meta)
    return Amazon(folder)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"[" * 200_000, "unreadable_lines"),
        (b'{"asin": "a", "reviewerID": "u", "unixReviewTime": 1%s}' % (b"0" * 400), "no_time"),
        (b'{"asin": "a", "reviewerID": "\\ud800", "unixReviewTime": 1400000000}', "no_user"),
    ],
    ids=["nested too deep", "a number that no float holds", "half a character"],
)
def test_a_hostile_line_costs_itself_alone(tmp_path: Path, line: bytes, what: str) -> None:
    report = amazon(tmp_path, line + b"\n").report()
    assert (report["review_lines"], report[what]) == (2, 1)


def test_metadata_of_that_kind_too(tmp_path: Path) -> None:
    meta = b'{"asin": "b", "title": "B\\ud800", "price": 1%s}\n' % (b"0" * 400)
    assert amazon(tmp_path, b"", meta).products()["title"].to_list() == ["A", "B"]


def test_gzip_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    source = amazon(tmp_path, b"")
    packed = bytearray(gzip.compress(random.Random(0).randbytes(5000).hex().encode()))
    packed[40:60] = b"\xff" * 20
    (tmp_path / "reviews.json.gz").write_bytes(packed)
    with pytest.raises(SourceError, match=r"reviews.json.gz cannot be read after line 0"):
        type(source)(tmp_path).events()
