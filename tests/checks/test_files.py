"""`sigma contracts check`: every violation of a file, with rows, before anyone ingests it."""

from pathlib import Path

import polars as pl
import pytest

from sigma_assets.checks.files import check_contracts, check_file
from sigma_assets.cli import main
from sigma_core import columns as c
from sigma_core import contracts
from sigma_core.contracts import ContractError, bundled_path
from sigma_core.data.sources.base import SourceError
from tests.toy_world import small_source, toy_catalog, toy_source


def said(found: list) -> str:
    return "\n".join(violation.text() for violation in found)


def events_file(folder: Path, frame: pl.DataFrame, suffix: str = "parquet") -> Path:
    path = folder / f"late.{suffix}"
    plain = frame.drop(c.SOURCE_ROW)
    plain.write_csv(path) if suffix == "csv" else plain.write_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_good_events_have_nothing_to_complain_about(tmp_path: Path, suffix: str) -> None:
    good = toy_source().events()
    found = check_file("events", events_file(tmp_path, good, suffix), toy_source().products()[c.ITEM_ID])
    assert not [one for one in found if one.severity == "ERROR"], said(found)


def test_every_kind_of_bad_event_is_told_with_its_row(tmp_path: Path) -> None:
    source = small_source(num_users=20, num_items=40, days=20)
    found = check_file("events", events_file(tmp_path, source.events()), source.products()[c.ITEM_ID])
    text = said(found)
    for reason in ("null_user", "null_item", "bad_time", "unknown_item", "nonpositive_quantity", "duplicate"):
        assert f"1 rows would be put aside: {reason}" in text
    assert "item_id=nowhere" in text
    assert f"{c.SOURCE_ROW}={source.events().height - 1}" in text


def test_a_time_that_cannot_be_read_is_shown_as_it_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    times = ("2025-01-01T10:00:00", "2025-13-01T10:00:00", "1735900000", "03/01/2025")
    path.write_text("user_id,item_id,event_time\n" + "".join(f"u,a,{time}\n" for time in times))
    text = said(check_file("events", path))
    assert "3 rows would be put aside: bad_time; read are 2017-10-23, " in text
    assert all(
        f"source_row={row}, user_id=u, item_id=a, event_time={times[row]}" in text for row in (1, 2, 3)
    )


def test_what_may_be_meant_otherwise_is_told(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    rows = [f"u{n},a,2025-01-0{1 + n}T00:30:00+02:00" for n in range(6)]
    path.write_text("user_id,item_id,event_time\n" + "\n".join([*rows, "nan,a,2025-01-01"]) + "\n")
    text = said(check_file("events", path))
    assert "6 times filed under another day in utc than by their own clock" in text
    assert "1 ids that say nan none or null" in text


def test_the_same_on_many_days_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    days = [f"2025-01-0{n}" for n in range(1, 7)]
    path.write_text("user_id,item_id,event_time\n" + "".join(f"u,a,{day}\nu,a,{day}\n" for day in days))
    text = said(check_file("events", path))
    assert text.count("day.few_lines_refused") == 1
    assert "day.few_lines_refused on 6 days, the first 2025-01-01" in text


def test_users_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("user_id,age\nu,34\n")
    assert check_file("users", path) == []
    path.write_text("user_id,age\nu,34\nu,35\n")
    assert "'u' is there twice" in said(check_file("users", path))


def test_impossible_and_far_times_are_told_and_move_no_day(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    times = ("1970-01-01", *["2024-03-01T10:00"] * 8, "2204-01-03")
    path.write_text("user_id,item_id,event_time\n" + "".join(f"u{n},a,{t}\n" for n, t in enumerate(times)))
    text = said(check_file("events", path))
    assert "1 row(s) up to 1970-01-01, then none for more than 365 days until 2024-03-01" in text
    assert "1 rows would be put aside: future_time" in text
    assert "few_times_unusable on 1970-01-01" in text


def test_a_day_of_mostly_unusable_rows_is_an_error(tmp_path: Path) -> None:
    source = toy_source()
    broken = source.events().with_columns(
        pl.when(pl.col(c.EVENT_TIME).dt.day() == 5).then(0.0).otherwise(c.QUANTITY).alias(c.QUANTITY)
    )
    found = check_file("interaction_events", events_file(tmp_path, broken), source.products()[c.ITEM_ID])
    assert found[0].severity == "ERROR"
    assert "on 2024-03-05" in found[0].where
    assert "most_lines_usable" in said(found)


def test_a_file_with_the_wrong_columns_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text("user,item\n1,2\n")
    (only,) = check_file("events", path)
    assert only.severity == "ERROR"
    assert "user_id" in only.what
    (only,) = check_file("items", path)
    assert "item_id" in only.what


def test_items_with_lists_for_words_are_one_error(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({c.ITEM_ID: ["a"], c.TITLE: [["tea", "green"]]}).write_parquet(path)
    (only,) = check_file("items", path)
    assert (only.severity, "column title of the items: List" in only.what) == ("ERROR", True)


def test_items_without_an_id_twice_or_without_words_are_told(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title\na,Apple\na,Pear\n,Plum\nb,\n")
    found = check_file("items", path)
    assert [one.severity for one in found] == ["ERROR", "ERROR", "WARN"]
    assert "item_id=a" in said(found)
    assert "row=3, item_id=b" in said(found)


def test_words_that_will_be_cut_are_a_warning_with_their_beginning_only(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(f"item_id,title,brand\na,{'word ' * 80},x\nb,{'word ' * 78},x\n")  # 402 and 392
    (only,) = check_file("items", path)
    assert only.severity == "WARN"
    assert "1 rows with over 400 characters" in only.what
    assert only.examples == (f"row=0, item_id=a, characters=402, begins={'word ' * 12}",)


def test_a_published_table_is_checked_against_its_contract(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.csv"
    frame = toy_catalog().frame
    frame.write_parquet(good)
    found = check_file("item_catalog", good)
    assert [one.severity for one in found if one.severity != "WARN"] == ["INFO"], said(found)
    broken = frame.with_columns(
        pl.lit("ice_a").alias(c.ITEM_ID), pl.col(c.NUM_EVENTS_14D).cast(pl.String) + "?"
    )
    broken.write_csv(bad)
    text = said(check_file("item_catalog", bad))
    assert "5 values of num_events_14d are no Int64" in text
    assert "row=0, num_events_14d=" in text
    assert "item_id=ice_a" in text


def test_a_table_or_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = events_file(tmp_path, toy_source().events())
    with pytest.raises(ContractError, match=r"no table 'orders'; there are events, items"):
        check_file("orders", path)
    with pytest.raises(SourceError, match=r"nothing\.csv"):
        check_file("events", tmp_path / "nothing.csv")
    (tmp_path / "half.parquet").write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match="not a readable parquet"):
        check_file("events", tmp_path / "half.parquet")


def test_the_verb_prints_violations_and_fails_on_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title\na,Apple\na,Pear\n")
    arguments = ["contracts", "check", "--table", "items", "--path", str(path), "--root", str(tmp_path / "r")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "1 errors, 0 warnings" in capsys.readouterr().out


def test_every_contract_of_the_project_can_be_checked() -> None:
    assert check_contracts() == len(contracts.contract_names())


def test_a_contract_edited_to_nonsense_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data_contracts"
    folder.mkdir()
    text = (bundled_path("data_contracts") / "item_catalog.yaml").read_text()
    nonsense = text.replace("expect_column_values_to_be_unique", "expect_column_values_to_be_unicorns")
    assert nonsense != text
    (folder / "item_catalog.yaml").write_text(nonsense)
    monkeypatch.setattr(contracts, "bundled_path", lambda _: folder)
    contracts.load_contract.cache_clear()
    try:
        with pytest.raises(ContractError, match=r"item_catalog.*GX does not know.*unicorns"):
            check_contracts()
        (folder / "item_catalog.yaml").write_text(text.replace("severity: critical", "severity: awful", 1))
        contracts.load_contract.cache_clear()
        with pytest.raises(ContractError, match="severity"):
            check_contracts()
    finally:
        contracts.load_contract.cache_clear()
