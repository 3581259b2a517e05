"""Sources: what is read, and the one clear error for what cannot be."""

from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.data.sources import Source, SourceError, open_source
from sigma_core.data.sources.base import PRODUCT_SCHEMA, RAW_EVENT_SCHEMA, event_dates, read_table
from tests.toy_world import small_source, toy_source, write_tabular


def test_unknown_source_names_the_known_ones():
    with pytest.raises(SourceError, match="complete_journey, movielens, amazon, tabular"):
        open_source("netflix")


@pytest.mark.parametrize("name", ["movielens", "amazon", "tabular"])
def test_folder_sources_need_a_folder_that_is_there(name, tmp_path):
    with pytest.raises(SourceError, match="needs --path DIR"):
        open_source(name)
    with pytest.raises(SourceError, match="is not a folder"):
        open_source(name, tmp_path / "nowhere")
    with pytest.raises(SourceError, match="needed"):
        open_source(name, tmp_path)


def test_the_embedded_source_takes_no_path(tmp_path):
    with pytest.raises(SourceError, match="takes no --path"):
        open_source("complete_journey", tmp_path)


# --------------------------------------------------------------------------------------- tabular
@pytest.mark.parametrize("make", [toy_source, small_source])
def test_written_and_read_back_a_world_is_the_same(make, tmp_path):
    world = make()
    source = open_source("tabular", write_tabular(world, tmp_path / "in"))
    assert isinstance(source, Source)
    assert source.events().equals(world.events())
    assert source.products().equals(world.products())
    assert source.users().equals(world.users())
    assert source.date_range() == world.date_range()
    assert source.id_vectors() is None


def test_vectors_come_back_sorted_by_item(tmp_path):
    world = toy_source()
    world.ids = (["ice_a", "dia_a"], np.array([[1, 2], [3, 4]], dtype=np.float32))
    ids, vectors = open_source("tabular", write_tabular(world, tmp_path)).id_vectors()
    assert ids == ["dia_a", "ice_a"]
    assert vectors.tolist() == [[3, 4], [1, 2]]
    assert vectors.dtype == np.float32


def csv(folder, **tables: str):
    defaults = {
        "events": "user_id,item_id,event_time\nu,007,2024-03-01 10:00:00\n",
        "items": "item_id,title\n007,Goldfinger\n",
    }
    for name, text in (defaults | tables).items():
        (folder / f"{name}.csv").write_text(text)
    return open_source("tabular", folder)


def test_csv_ids_stay_text_and_absent_columns_are_null(tmp_path):
    source = csv(tmp_path)
    assert dict(source.events().schema) == RAW_EVENT_SCHEMA
    assert dict(source.products().schema) == PRODUCT_SCHEMA
    assert source.events()[c.ITEM_ID].to_list() == ["007"]
    assert source.events()[c.EVENT_TYPE].to_list() == ["purchase"]
    assert source.users().is_empty()


def test_times_of_several_shapes(tmp_path):
    texts = [
        "2024-03-01",
        "2024-03-01 10:00",
        "2024-03-01T10:00:00Z",
        "2024-03-01T10:00:00+02:00",
        "2024-03-01 10:00:00Z",
        "2024-03-01 10:00:00.5+02:00",
        "2024-03-01T10:00+02:00",
        "2024-03-01 10:00Z",
        "soon",
        "",
    ]
    rows = "".join(f"u,007,{t}\n" for t in texts)
    times = csv(tmp_path, events="user_id,item_id,event_time\n" + rows).events()[c.EVENT_TIME].to_list()
    ten, eight = datetime(2024, 3, 1, 10), datetime(2024, 3, 1, 8)
    assert times == [
        datetime(2024, 3, 1),
        ten,
        ten,
        eight,
        ten,
        eight.replace(microsecond=500_000),
        eight,
        ten,
        None,
        None,
    ]


def test_what_may_be_meant_otherwise_is_counted(tmp_path):
    rows = "u,007,2024-03-01T00:30:00+02:00\nnan,007,2024-03-01T10:00+0200\nu,NULL,2024-03-01T00:30:00Z\nu,007,2024-03-01\n"
    source = csv(tmp_path, events="user_id,item_id,event_time\n" + rows)
    assert source.events()[c.EVENT_TIME].dt.day().to_list() == [29, 1, 1, 1]
    counts = {
        "times_with_a_zone_turned_into_utc": 2,
        "times_filed_under_another_day_in_utc_than_by_their_own_clock": 1,
        "ids_that_say_nan_none_or_null": 2,
    }
    assert source.report() == counts
    (tmp_path / "events.csv").unlink()
    night = pl.Series([datetime(2024, 3, 1, 2)]).dt.replace_time_zone("Asia/Tokyo")
    pl.DataFrame({c.USER_ID: ["u"], c.ITEM_ID: ["007"], c.EVENT_TIME: night}).write_parquet(
        tmp_path / "events.parquet"
    )
    assert list(open_source("tabular", tmp_path).report().values()) == [1, 1]
    (tmp_path / "events.parquet").unlink()
    assert csv(tmp_path).report() == {}


def test_nan_and_infinity_are_no_numbers(tmp_path):
    """NaN is above every bound, so it would have been a price that every least price admits."""
    rows = "u,007,2024-03-01,nan,inf\nu,007,2024-03-02,2.5,NaN\n"
    events = csv(tmp_path, events="user_id,item_id,event_time,price,quantity\n" + rows).events()
    assert events[c.PRICE].to_list() == [None, 2.5]
    assert events[c.QUANTITY].to_list() == [None, None]
    (tmp_path / "users.parquet").unlink(missing_ok=True)
    pl.DataFrame({c.USER_ID: ["u", "v"], "age": [float("nan"), 31.5]}).write_parquet(
        tmp_path / "users.parquet"
    )
    assert open_source("tabular", tmp_path).users()["age"].to_list() == [None, "age 31.5"]


SPREADSHEETS = {
    "semicolons": ("item_id;title\n007;Goldfinger\n", "utf-8", "parted by ';'"),
    "tabs": ("item_id\ttitle\n007\tGoldfinger\n", "utf-8", r"parted by '\\t'"),
    "semicolons and a decimal comma": ("item_id;title\n007;1,5\n", "utf-8", "parted by ';'"),
    "latin": ("item_id,title\n007,Größe\n", "cp1252", "not UTF-8 .*save it as UTF-8"),
    "utf-16": ("item_id,title\n007,Größe\n", "utf-16", "is UTF-16; save it as UTF-8"),
}


@pytest.mark.parametrize(("text", "encoding", "message"), SPREADSHEETS.values(), ids=SPREADSHEETS.keys())
def test_what_a_spreadsheet_writes_is_told(text, encoding, message, tmp_path):
    source = csv(tmp_path)
    (tmp_path / "items.csv").write_bytes(text.encode(encoding))
    with pytest.raises(SourceError, match=message):
        source.products()


def test_a_byte_order_mark_belongs_to_no_column(tmp_path):
    source = csv(tmp_path)
    (tmp_path / "items.csv").write_text("item_id,title\n007,Größe\n", encoding="utf-8-sig")
    assert source.products().row(0)[:2] == ("007", "Größe")


def events_on(*days: str) -> str:
    return "user_id,item_id,event_time\n" + "".join(f"u,007,{day}\n" for day in days)


def test_a_time_after_tomorrow_moves_no_calendar(tmp_path):
    source = csv(tmp_path, events=events_on("2024-03-01", "2204-03-02", "2024-03-02"))
    assert source.date_range() == (date(2024, 3, 1), date(2024, 3, 2))
    rows = source.events()
    assert event_dates(rows, "events", date(2204, 3, 1))[1] == date(2204, 3, 2), "tomorrow is possible"
    with pytest.raises(SourceError, match="up to 2024-02-28"):
        event_dates(rows, "events", date(2024, 2, 27))


def test_rows_before_a_gap_of_more_than_a_year_are_refused(tmp_path):
    ok = csv(tmp_path, events=events_on("2023-03-01", "2024-03-01"))
    assert ok.date_range()[0] == date(2023, 3, 1), "365 days without an event"
    far = csv(tmp_path, events=events_on("1970-01-01", "1970-01-01", "2024-03-01", "2024-03-02"))
    with pytest.raises(SourceError, match=r"2 row\(s\) up to 1970-01-01, then none .* until 2024-03-01"):
        far.date_range()


def test_profile_columns_are_said_with_their_name(tmp_path):
    users = csv(tmp_path, users="user_id,age_group,profile\nu,25-34,likes tea\n").users()
    assert users.row(0) == ("u", "age group 25-34", "likes tea")


BAD_CSV = {
    "missing column": (
        {"events": "user_id,item\nu,1\n"},
        r"events\.csv: column item_id, event_time is missing",
    ),
    "no time at all": (
        {"events": "user_id,item_id,event_time\nu,007,soon\n"},
        r"events\.csv, column event_time: no value .* 'soon'",
    ),
    "quantity is text": (
        {"events": "user_id,item_id,event_time,quantity\nu,007,2024-03-01,two\n"},
        r"column quantity, row 0: 'two' arrived",
    ),
    "a decimal comma": (
        {"events": 'user_id,item_id,event_time,price\nu,007,2024-03-01,"19,95"\n'},
        r"column price, row 0: '19,95' arrived; .* with a decimal point",
    ),
    "views only": (
        {"events": "user_id,item_id,event_time,event_type\nu,007,2024-03-01,view\n"},
        r"column event_type: only view arrived.* what was read or watched is a purchase",
    ),
    "items without words": ({"items": "item_id,colour\n007,red\n"}, r"items\.csv: none of the columns title"),
    "item twice": (
        {"items": "item_id,title\n007,a\n007,b\n"},
        r"items\.csv, column item_id: '007' is there twice",
    ),
    "item without id": ({"items": "item_id,title\n,a\n"}, r"items\.csv, column item_id: 1 empty"),
    "user twice": ({"users": "user_id\nu\nu\n"}, r"users\.csv, column user_id: 'u' is there twice"),
}


@pytest.mark.parametrize(("tables", "message"), BAD_CSV.values(), ids=BAD_CSV.keys())
def test_a_bad_table_is_one_clear_error(tables, message, tmp_path):
    source = csv(tmp_path, **tables)
    with pytest.raises(SourceError, match=message):
        [read() for read in (source.products, source.users, source.events)]


def test_bad_parquet_types_are_clear_errors(tmp_path):
    source = csv(tmp_path)
    (tmp_path / "events.csv").unlink()
    good = {c.USER_ID: ["u"], c.ITEM_ID: ["007"], c.EVENT_TIME: [datetime(2024, 3, 1)]}
    bad = (
        ({c.USER_ID: [1.5]}, "column user_id: Float64 arrived"),
        ({c.EVENT_TIME: [1709287200]}, "column event_time: Int64 arrived"),
        ({"price": [[1.0]]}, "column price: List"),
    )
    for change, message in bad:
        pl.DataFrame(good | change).write_parquet(tmp_path / "events.parquet")
        with pytest.raises(SourceError, match=message):
            open_source("tabular", tmp_path).events()
    (tmp_path / "events.parquet").write_bytes(b"no parquet")
    with pytest.raises(SourceError, match="not a readable parquet table"):
        open_source("tabular", tmp_path).events()
    (tmp_path / "events.csv").write_text("")
    with pytest.raises(SourceError, match="both"):
        open_source("tabular", tmp_path)
    assert source.name == "tabular"


def test_bad_vectors_are_clear_errors(tmp_path):
    source = csv(tmp_path)
    file = tmp_path / "item_id_vectors.parquet"
    bad = (
        ({c.ITEM_ID: ["a"]}, "column vector is missing"),
        ({c.ITEM_ID: ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}, "one length is needed"),
        ({c.ITEM_ID: ["a"], "vector": [[float("nan")]]}, "item 'a' holds NaN"),
        ({c.ITEM_ID: ["a"], "vector": [1.0]}, "a list of numbers"),
    )
    for table, message in bad:
        pl.DataFrame(table).write_parquet(file)
        with pytest.raises(SourceError, match=message):
            source.id_vectors()


def test_fingerprint_follows_the_content(tmp_path):
    before = csv(tmp_path).fingerprint()
    assert csv(tmp_path).fingerprint() == before
    assert csv(tmp_path, items="item_id,title\n007,Moonraker\n").fingerprint() != before


# ------------------------------------------------------------------------------------- movielens
GENRES = ["unknown", "Action", "Animation", "Children's", "Comedy"]


def small_movielens(folder):
    (folder / "u.genre").write_text("".join(f"{g}|{i}\n" for i, g in enumerate(GENRES)))
    flags = {"1": "0|0|1|1|1", "2": "0|1|0|0|0", "3": "1|0|0|0|0"}
    titles = {"1": "Toy Story (1995)", "2": "GoldenEye (1995)", "3": "Les Misérables (1995)"}
    lines = [f"{i}|{titles[i]}|01-Jan-1995||http://x|{flags[i]}" for i in titles]
    (folder / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    (folder / "u.data").write_text("1\t1\t5\t874965758\n2\t3\t1\t875000000\n1\t2\t3\tsoon\n")
    return folder


def large_movielens(folder):
    (folder / "movies.dat").write_bytes(
        "1::Toy Story (1995)::Animation|Children's|Comedy\n".encode("latin-1")
    )
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    (folder / "ratings.dat").write_text("1::1::5::978300760\n2::1::4::978302109\n")
    return folder


def test_ml_100k(tmp_path):
    source = open_source("movielens", small_movielens(tmp_path))
    events = source.events()
    assert dict(events.schema) == RAW_EVENT_SCHEMA
    assert events.select(c.USER_ID, c.ITEM_ID, c.EVENT_TYPE).row(0) == ("1", "1", "rating")
    assert events[c.EVENT_TIME].to_list() == [
        datetime(1997, 9, 22, 22, 2, 38),
        datetime(1997, 9, 23, 7, 33, 20),
        None,
    ]
    movies = source.products().select(c.ITEM_ID, c.TITLE, c.ITEM_TYPE, c.CATEGORY).rows()
    assert movies == [
        ("1", "Toy Story (1995)", "animation children comedy", "animation"),
        ("2", "GoldenEye (1995)", "action", "action"),
        ("3", "Les Misérables (1995)", None, None),
    ]
    assert source.users().rows() == [("1", "aged 24", "man", "technician"), ("2", "aged 53", "woman", None)]
    assert source.date_range() == (date(1997, 9, 22), date(1997, 9, 23))


def test_ml_1m(tmp_path):
    source = open_source("movielens", large_movielens(tmp_path))
    assert isinstance(source, Source)
    assert source.events()[c.EVENT_TIME][0] == datetime(2000, 12, 31, 22, 12, 40)
    assert source.products().row(0)[:4] == ("1", "Toy Story (1995)", "animation children comedy", "animation")
    assert source.users().rows() == [
        ("1", "aged under 18", "woman", "school student"),
        ("2", "aged 56 or more", "man", "self-employed"),
    ]


def test_half_a_movielens_folder_names_what_is_missing(tmp_path):
    large_movielens(tmp_path)
    (tmp_path / "users.dat").unlink()
    with pytest.raises(SourceError, match=r"lacks users\.dat"):
        open_source("movielens", tmp_path)


def test_a_line_with_too_few_fields_is_named(tmp_path):
    large_movielens(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n1::1::5\n")
    with pytest.raises(SourceError, match=r"ratings\.dat: line 2 has 3 fields; 4 fields"):
        open_source("movielens", tmp_path).events()


def test_small_world_is_the_same_every_time():
    assert small_source().events().equals(small_source().events())
    assert not small_source(seed=1).events().equals(small_source().events())


def test_a_table_that_is_not_there_is_told_apart_from_one_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "items.xlsx").touch()
    (tmp_path / "items.parquet").write_text("no parquet")
    for name, said in (
        ("gone.csv", "does not exist"),
        ("items.xlsx", "ends in .xlsx"),
        ("items.parquet", "not a readable parquet table"),
    ):
        with pytest.raises(SourceError, match=said):
            read_table(tmp_path / name)
