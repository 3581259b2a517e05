"""The folder of leave-one-out from a source: what is kept, in which order, and what meta.json says of it. All by hand."""

import json
from pathlib import Path

import polars as pl
import pytest

from sigma_assets.cli import main
from sigma_core import columns as c
from sigma_core.benchmarks.leave_one_out.convert import write_sequences
from sigma_core.benchmarks.leave_one_out.data import load_sequences
from sigma_core.data.cores import core_pairs
from sigma_core.data.sources import open_source
from tests.data.test_amazon import WRITERS
from tests.toy_world import toy_source

# u takes a, b, c and b again, v a, b, c; x takes the three at one time, w takes d alone; v only views d.
EVENTS = """user_id,item_id,event_time,event_type
u,b,2024-01-02,purchase
u,a,2024-01-01,purchase
v,a,2024-01-01,purchase
v,b,2024-01-02,rating
v,c,2024-01-03,purchase
v,d,2024-01-04,view
u,c,2024-01-03,purchase
u,b,2024-01-04,purchase
w,d,2024-01-01,purchase
u,nowhere,2024-01-01,purchase
x,b,2024-01-05,purchase
x,a,2024-01-05,purchase
x,c,2024-01-05,purchase
"""
ITEMS = "item_id,title,item_type,category,department\na,Apple,fruit,fresh,food\nb,,bread,,food\nc,Cola,drinks,drinks,\nd,Dill,,,\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "events.csv").write_text(EVENTS)
    (folder / "items.csv").write_text(ITEMS)
    return folder


def lines(folder: Path) -> list[str]:
    return (folder / "sequences.txt").read_text().splitlines()


def test_taken_items_of_the_core_once_each_oldest_first(shop: Path, tmp_path: Path) -> None:
    meta = write_sequences(open_source("tabular", shop), tmp_path / "out", path=shop, k_core=3)
    assert lines(tmp_path / "out") == ["u a b c", "v a b c", "x b a c"]  # b of u where it came first
    items = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    assert items == [
        {"item_id": "a", "title": "Apple", "categories": ["food", "fresh", "fruit"]},
        {"item_id": "b", "title": "Bread", "categories": ["food", "bread"]},
        {"item_id": "c", "title": "Cola", "categories": ["drinks"]},
    ]
    assert meta["counts"] == {
        "events": 13,
        "refused": {"unknown_item": 1},
        "not_taken": 1,
        "repeated": 1,
        "outside_core": 1,
        "interactions": 9,
        "users": 3,
        "items": 3,
    }
    assert meta["last_two_tie_share"] == 1 / 3  # x
    assert json.loads((tmp_path / "out" / "meta.json").read_text()) == meta
    assert meta["digest"] == load_sequences(tmp_path / "out").digest
    assert list(meta["files"]) == ["events.csv", "items.csv"]


def test_without_a_core_users_who_cannot_be_tested_are_left_out(shop: Path, tmp_path: Path) -> None:
    meta = write_sequences(open_source("tabular", shop), tmp_path / "out", k_core=1)
    assert (meta["counts"]["users"], meta["counts"]["items"]) == (3, 3)  # w has one item, and d no one else


def test_shuffled_ties_are_a_matter_of_the_seed_and_not_of_the_file(shop: Path, tmp_path: Path) -> None:
    found = {
        seed: write_sequences(
            open_source("tabular", shop), tmp_path / f"s{seed}", k_core=3, ties="shuffled", seed=seed
        )["digest"]
        for seed in range(8)
    }
    orders = {lines(tmp_path / f"s{seed}")[2] for seed in found}
    assert len(orders) > 2
    assert all(lines(tmp_path / f"s{seed}")[:2] == ["u a b c", "v a b c"] for seed in found)
    head, *rows = EVENTS.splitlines()
    (shop / "events.csv").write_text("\n".join([head, *reversed(rows)]) + "\n")
    again = write_sequences(
        open_source("tabular", shop), tmp_path / "again", k_core=3, ties="shuffled", seed=5
    )
    assert again["digest"] == found[5]
    by_file = write_sequences(open_source("tabular", shop), tmp_path / "file", k_core=3)
    assert lines(tmp_path / "file")[2] == "x c a b"
    assert (by_file["seed"], again["seed"]) == (None, 5)


def test_a_core_is_peeled_again_and_again() -> None:
    """A chain: each pair hangs on the one before it, and only the square a, b x 1, 2 holds."""
    square = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    chain = [("b", "3"), ("c", "3"), ("c", "4")]
    pairs = pl.DataFrame(square + chain, schema=[c.USER_ID, c.ITEM_ID], orient="row")
    assert core_pairs(pairs, user_least=2, item_least=2).rows() == square
    assert core_pairs(pairs, user_least=3, item_least=1).rows() == [("b", "1"), ("b", "2"), ("b", "3")]
    assert core_pairs(pairs, user_least=3, item_least=2).is_empty()


@pytest.mark.parametrize("year", WRITERS)
def test_the_three_amazon_formats_give_the_same_folder(year: str, tmp_path: Path) -> None:
    """Ann reviews the brush too, a day after cy, so that she has three items; bob and cy are left out."""
    data = tmp_path / year
    data.mkdir()
    WRITERS[year](data)
    reviews = next(f for f in data.iterdir() if not f.name.startswith("meta"))
    third = {
        "2014": {"reviewerID": "ann", "asin": "B3", "unixReviewTime": 1394064000},
        "2018": {"reviewerID": "ann", "asin": "B3", "unixReviewTime": 1394064000},
        "2023": {"user_id": "ann", "parent_asin": "B3", "timestamp": 1394064000000},
    }[year]
    (data / ("x.json" if year != "2023" else "x.jsonl")).write_text(json.dumps(third))
    out = tmp_path / "out"
    main_ok(
        "benchmark",
        "sequences",
        "--source",
        "amazon",
        "--path",
        str(data),
        "--k-core",
        "1",
        "--out",
        str(out),
    )
    assert lines(out) == ["ann B1 B2 B3"]
    made = load_sequences(out)
    assert made.titles == ["Night & Day Cream", "It's a soap.", "Brush"]
    assert made.categories == [["Beauty", "Skin Care", "Creams"], ["Beauty", "Skin Care"], []]
    meta = json.loads((out / "meta.json").read_text())
    assert reviews.name in meta["files"]
    assert meta["source_report"]["review_lines"] == 6


def test_every_kind_of_source_can_be_converted(tmp_path: Path) -> None:
    meta = write_sequences(toy_source(), tmp_path / "toy", k_core=1)
    assert lines(tmp_path / "toy") == [
        "u1 ice_a ice_b dia_b", "u2 ice_a ice_c ice_b", "u3 dia_a dia_b dia_c", "u4 dia_a dia_b dia_c",
    ]  # fmt: skip
    assert meta["path_digest"] == toy_source().fingerprint()
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::10::5::100\n1::11::1::300\n1::12::3::200\n")
    (folder / "movies.dat").write_text("".join(f"{i}::Film {i} (1999)::Drama|Comedy\n" for i in (10, 11, 12)))
    (folder / "users.dat").write_text("1::F::25::0::12345\n")
    write_sequences(open_source("movielens", folder), tmp_path / "films", path=folder, k_core=1)
    assert lines(tmp_path / "films") == ["1 10 12 11"]
    assert load_sequences(tmp_path / "films").categories[0] == ["movies", "drama", "drama comedy"]


def test_what_cannot_be_made_says_why_and_leaves_nothing(shop: Path, tmp_path: Path) -> None:
    source, out = open_source("tabular", shop), tmp_path / "out"
    with pytest.raises(ValueError, match="none is left with --k-core 4"):
        write_sequences(source, out, k_core=4)
    with pytest.raises(ValueError, match="needed a k_core of 1 or more and file or shuffled"):
        write_sequences(source, out, ties="random")  # type: ignore[arg-type]
    spaced = toy_source()
    spaced.raw = spaced.raw.with_columns(pl.col(c.USER_ID) + " x")
    with pytest.raises(ValueError, match="user id 'u1 x' holds a blank"):
        write_sequences(spaced, out, k_core=1)
    assert not out.exists()
    write_sequences(source, out, k_core=3)
    with pytest.raises(ValueError, match="is there and not an empty folder"):
        write_sequences(source, out, k_core=3)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["out", "shop"]
    with pytest.raises(ValueError, match="sigma benchmark sequences"):
        load_sequences(shop)


def main_ok(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert not ended.value.code
