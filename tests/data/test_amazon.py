"""Amazon Reviews in each of the three formats: the same shop, written as 2014, 2018 and 2023 wrote it."""

import gzip
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.data.events import clean_events
from sigma_core.data.sources import Source, SourceError, open_source
from sigma_core.data.sources.amazon_text import category_path, plain_text, price_of, title_of
from sigma_core.data.sources.base import report_of

BOUGHT = [("ann", "B1", 0), ("ann", "B2", 1), ("bob", "B1", 2), ("bob", "B2", 3), ("cy", "B3", 4)]
START = int(datetime(2014, 3, 1, tzinfo=UTC).timestamp())
PATH = ["Beauty", "Skin Care", "Face", "Creams"]


def day(number: int) -> int:
    return START + 86_400 * number


def write_2014(folder: Path) -> Path:
    reviews = [
        json.dumps({"reviewerID": u, "asin": i, "overall": 5.0, "unixReviewTime": day(d)})
        for u, i, d in BOUGHT
    ]
    meta = [
        str({"asin": "B1", "title": "Night &amp; Day <b>Cream</b>", "price": 5.99, "brand": "Olay",
             "categories": [["Beauty"], PATH]}),
        str({"asin": "B2", "description": "It's a soap.", "categories": [PATH[:2]]}),
        str({"asin": "B3", "title": "Brush", "price": 12.0}),
    ]  # fmt: skip
    with gzip.open(folder / "reviews_Beauty_5.json.gz", "wt") as file:
        file.write("\n".join(reviews))
    with gzip.open(folder / "meta_Beauty.json.gz", "wt") as file:
        file.write("\n".join(meta))
    return folder


def write_2018(folder: Path) -> Path:
    reviews = [
        {
            "reviewerID": u,
            "asin": i,
            "overall": 4.0,
            "verified": True,
            "unixReviewTime": day(d),
            "image": ["x"],
        }
        for u, i, d in BOUGHT
    ]
    meta = [
        {"asin": "B1", "title": "Night &amp; Day <b>Cream</b>", "price": "$5.99", "brand": "by Olay", "category": PATH,
         "main_cat": "All Beauty"},
        {"asin": "B2", "title": "var aPageStart = (new Date()).getTime();", "description": ["It's a soap."],
         "category": [*PATH[:2], "With a very long sentence about what makes this product so special and dear"],
         "price": ".a-box-inner{background-color:#fff}"},
        {"asin": "B3", "title": "Brush", "price": "$12.00 - $30.00", "category": []},
    ]  # fmt: skip
    (folder / "Beauty_5.json").write_text("\n".join(map(json.dumps, reviews)))
    (folder / "meta_Beauty.json").write_text("\n".join(map(json.dumps, meta)))
    return folder


def write_2023(folder: Path) -> Path:
    reviews = [
        {
            "user_id": u,
            "asin": f"variant of {i}",
            "parent_asin": i,
            "rating": 3.0,
            "timestamp": 1000 * day(d) + 7,
        }
        for u, i, d in BOUGHT
    ]
    meta = [
        {"parent_asin": "B1", "title": "Night &amp; Day <b>Cream</b>", "price": 5.99, "store": "Shop",
         "details": {"Brand": "Olay"}, "categories": PATH, "main_category": "All Beauty"},
        {"parent_asin": "B2", "title": "", "description": ["It's a soap."], "categories": PATH[:2], "price": "—"},
        {"parent_asin": "B3", "title": "Brush", "price": "from 12.00", "categories": [], "main_category": None},
    ]  # fmt: skip
    (folder / "All_Beauty.jsonl").write_text("\n".join(map(json.dumps, reviews)))
    with gzip.open(folder / "meta_All_Beauty.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, meta)))
    return folder


WRITERS = {"2014": write_2014, "2018": write_2018, "2023": write_2023}


@pytest.mark.parametrize("year", WRITERS)
def test_the_three_formats_say_the_same(year: str, tmp_path: Path) -> None:
    source = open_source("amazon", WRITERS[year](tmp_path))
    assert isinstance(source, Source)
    events = source.events()
    assert events.select(c.USER_ID, c.ITEM_ID).rows() == [(u, i) for u, i, _ in BOUGHT]
    assert events[c.EVENT_TIME].dt.date().to_list() == [
        datetime.fromtimestamp(day(d), UTC).date() for *_, d in BOUGHT
    ]
    assert events[c.PRICE].to_list() == [5.99, None, 5.99, None, 12.0]
    assert [str(d) for d in source.date_range()] == ["2014-03-01", "2014-03-05"]
    names = (c.TITLE, c.DEPARTMENT, c.CATEGORY, c.ITEM_TYPE, c.BRAND)
    assert source.products().select(names).rows() == [
        ("Night & Day Cream", "Beauty", "Skin Care", "Creams", "Olay"),
        ("It's a soap.", "Beauty", None, "Skin Care", None),
        ("Brush", None, None, None, None),
    ]
    accepted, refused = clean_events(events, source.products()[c.ITEM_ID])
    assert accepted.height == len(BOUGHT)
    assert refused.is_empty()


def test_broken_lines_go_to_quarantine_with_their_reason(tmp_path: Path) -> None:
    write_2023(tmp_path)
    with (tmp_path / "All_Beauty.jsonl").open("a") as file:
        file.write("\n{broken\n")
        file.write(json.dumps({"user_id": "dan", "parent_asin": "B1", "timestamp": "soon"}) + "\n")
        file.write(json.dumps({"user_id": "dan", "parent_asin": "B9", "timestamp": 1000 * day(1)}) + "\n")
        file.write(json.dumps({"user_id": "ann", "parent_asin": "B1", "timestamp": 1000 * day(0) + 7}) + "\n")
    source = open_source("amazon", tmp_path)
    accepted, refused = clean_events(source.events(), source.products()[c.ITEM_ID])
    assert accepted.height == len(BOUGHT)
    assert refused.select(c.SOURCE_ROW, c.REASON).rows() == [
        (5, "null_user"), (6, "bad_time"), (7, "unknown_item"), (8, "duplicate"),
    ]  # fmt: skip
    report = source.report()
    assert (report["review_lines"], report["unreadable_lines"], report["no_time"]) == (9, 1, 2)
    assert report["reviews_of_unknown_items"] == 1


def test_a_core_is_peeled_until_nothing_is_too_small(tmp_path: Path) -> None:
    """cy has one review; without it B3 has none. ann and bob have two items, each with two users."""
    write_2014(tmp_path)
    (tmp_path / "amazon.yaml").write_text("k_core: 2\n")
    source = open_source("amazon", tmp_path)
    assert set(source.events()[c.USER_ID]) == {"ann", "bob"}
    assert source.report()["reviews_outside_core"] == 1
    assert source.report()["users_outside_core"] == source.report()["items_outside_core"] == 1
    pairs = source.events().select(c.USER_ID, c.ITEM_ID)
    assert pairs.select(pl.len().over(c.USER_ID).min()).item() == 2
    (tmp_path / "amazon.yaml").write_text("k_core: 3\n")
    other = open_source("amazon", tmp_path)
    assert other.fingerprint() != source.fingerprint()
    with pytest.raises(SourceError, match="no review is left with k_core 3"):
        other.events()


@pytest.mark.parametrize("seed", range(5))
def test_what_the_pipeline_accepts_is_an_exact_core(seed: int, tmp_path: Path) -> None:
    """Random reviews, a fifth of them of items without metadata, some without a time: neither props up a user or an item."""
    draw = random.Random(seed)
    with (tmp_path / "reviews.json").open("w") as file:
        for _ in range(500):
            item = draw.randrange(50)
            time = day(draw.randrange(99)) if draw.random() < 0.9 else None
            review = {"reviewerID": f"u{draw.randrange(60)}", "asin": f"i{item}", "unixReviewTime": time}
            file.write(json.dumps(review) + "\n")
    (tmp_path / "meta.json").write_text(
        "\n".join(json.dumps({"asin": f"i{i}", "title": "x"}) for i in range(40))
    )
    (tmp_path / "amazon.yaml").write_text("k_core: 4\n")
    source, report = open_source("amazon", tmp_path), report_of(open_source("amazon", tmp_path))
    events = source.events()
    accepted, refused = clean_events(events, source.products()[c.ITEM_ID])
    pairs = accepted.select(c.USER_ID, c.ITEM_ID).unique()
    least = pairs.select(pl.len().over(name).min().alias(name) for name in (c.USER_ID, c.ITEM_ID))
    assert min(least.row(0)) >= 4
    assert set(refused[c.REASON]) <= {"bad_time", "duplicate"}
    assert report["reviews_of_unknown_items"] > 50
    left_out = report["reviews_of_unknown_items"] + report["reviews_outside_core"]
    assert report["review_lines"] == events.height + left_out


def test_what_is_no_amazon_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Beauty.json").write_text("no json at all\n")
    with pytest.raises(SourceError, match="a name that starts with meta"):
        open_source("amazon", tmp_path)
    (tmp_path / "meta_Beauty.json").write_text("{}\n")
    with pytest.raises(SourceError, match="JSON lines are needed"):
        open_source("amazon", tmp_path).events()
    (tmp_path / "amazon.yaml").write_text("kcore: 5\n")
    with pytest.raises(SourceError, match="needed only k_core"):
        open_source("amazon", tmp_path)


def test_text_and_prices_are_cleaned() -> None:
    assert plain_text("a<br/>b &amp;amp; c<script>alert(1)</script> 3 < 4") == "a b & c 3 < 4"
    assert [price_of(v) for v in ("$1,234.50", 0, -1, True, float("nan"), "free", None)] == [
        1234.5,
        *[None] * 6,
    ]
    assert title_of({"features": ["one two", "three"]}) == "one two three"
    assert category_path({"category": [], "main_cat": "Books"}) == ["Books"]
