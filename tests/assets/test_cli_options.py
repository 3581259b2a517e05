"""What is wrong with an option is said before anything is computed, and a refused verb leaves no folder behind."""

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sigma_assets.cli import app  # with every verb
from sigma_assets.cli_options import output_file, output_file_and_folder, output_folder, some_words
from sigma_assets.locking import root_lock
from sigma_assets.shown import stocked

OUTPUTS = (
    ("evaluate", "--as-of", "2017-10-23", "--json"),
    ("catalog-update", "--date", "2017-10-23", "--export"),
    ("abtest", "analyse", "--log", "nowhere", "--out"),
    ("benchmark", "generation", "--out"),
    ("benchmark", "backtest", "--out"),
    ("benchmark", "ablation", "--as-of", "2017-10-23", "--out"),
    ("embed-images", "pictures", "--model", "m", "--out"),
)


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_every_verb_refuses_a_folder_in_the_place_of_its_file(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(app, [*arguments, str(tmp_path)])
    assert done.exit_code == 2  # while parsing
    assert "is a folder" in done.output


@pytest.mark.parametrize("arguments", [*OUTPUTS, ("contracts", "docs", "--out")], ids=" ".join)
def test_every_verb_refuses_a_file_in_the_place_of_a_folder(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "file" / "x.json")])
    assert done.exit_code == 2
    assert "is a file" in done.output


def test_a_folder_must_be_there_unless_the_verb_makes_it_and_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, deep = tmp_path / "x.json", tmp_path / "new" / "x.json"
    assert output_file(good) == good
    assert output_file(None) is None
    with pytest.raises(typer.BadParameter, match="new does not exist"):
        output_file(deep)
    assert output_file_and_folder(deep) == deep
    assert output_folder(deep) == deep
    with pytest.raises(typer.BadParameter, match="no regular file"):
        output_file(Path(os.devnull))
    monkeypatch.setattr(os, "access", lambda *_: False)
    for check, path in ((output_file, good), (output_file_and_folder, deep), (output_folder, deep)):
        with pytest.raises(typer.BadParameter, match="not writable"):
            check(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--query", "--category", "--instruction"])
def test_an_empty_text_is_not_no_text(option: str) -> None:
    assert some_words("ice cream") == "ice cream"
    done = CliRunner().invoke(app, ["recommend", "--user", "1", option, " "])
    assert done.exit_code == 2
    assert option in done.output
    assert "empty text" in done.output


def test_a_root_that_is_a_file_is_refused_by_every_verb(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for verb in (["doctor"], ["materialize", "--as-of", "2017-10-23"], ["promotions"]):
        for root in (tmp_path / "file", tmp_path / "file" / "root"):
            done = CliRunner().invoke(app, [*verb, "--root", str(root)])
            assert done.exit_code == 2
            assert "is a file" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["ui"],
        ["catalog-update", "--date", "2017-10-23"],
        ["rollback", "--reason", "r"],
        ["materialize", "--as-of", "2017-10-23", "--source", "nowhere"],
        ["materialize", "--from", "2017-10-23", "--to", "2017-10-24", "--source", "nowhere"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_refused_verb_leaves_no_folder_behind(tmp_path: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, [*arguments, "--root", str(tmp_path / "typo" / "root")])
    assert isinstance(done.exception, ValueError)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_or_is_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    there.mkdir()
    CliRunner().invoke(app, ["ui", "--root", str(there)])
    assert there.is_dir()

    def other_process(_root: Path) -> list[object]:
        lock = root_lock(tmp_path / "new", "materialize")
        lock.__enter__()
        held.append(lock)
        return []

    held: list[object] = []
    monkeypatch.setattr("sigma_assets.doctor.doctor_report", other_process)
    CliRunner().invoke(app, ["doctor", "--root", str(tmp_path / "new")])
    assert (tmp_path / "new" / ".lock").exists()


def test_a_stock_file_of_windows_loses_no_id(tmp_path: Path) -> None:
    """Notepad writes a byte order mark, which would belong to the first id."""
    file = tmp_path / "stock.txt"
    file.write_text("0042\nDE 4711/XL ü\n\n", encoding="utf-8-sig", newline="\r\n")
    assert stocked(file) == {"0042", "DE 4711/XL ü"}
