"""Contracts as pages: complete, offline, with what really happened to the newest partitions."""

import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sigma_assets.cli import main
from sigma_assets.contract_docs import build_docs
from sigma_assets.instance import open_instance
from sigma_assets.planner import Step
from sigma_assets.runner import Runner
from sigma_core.contracts import contract_names, load_contract
from tests.assets.roots import Quiet, small_world, with_broken_day
from tests.toy_world import small_source


class Links(HTMLParser):
    """Everything that a page refers to, and its tags that were never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_contract_has_a_page_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    assert build_docs(tmp_path / "docs") == len(contract_names()) + 1
    pages = sorted((tmp_path / "docs").glob("*.html"))
    assert {page.stem for page in pages} == {*contract_names(), "index"}
    for page in pages:
        links = Links()
        links.feed(page.read_text())
        assert not links.open
        assert all((page.parent / link).exists() for link in links.found), links.found
    assert "url(" not in (tmp_path / "docs" / "style.css").read_text()
    for name in contract_names():
        text = (tmp_path / "docs" / f"{name}.html").read_text()
        for table in load_contract(name).tables.values():
            assert all(f"<code>{column.name}</code>" in text for column in table.columns)


def test_a_named_root_must_be_one(tmp_path: Path, capsys) -> None:
    for verb in (["contracts", "docs", "--out", str(tmp_path / "docs")], ["config"]):
        with pytest.raises(SystemExit) as ended:
            main([*verb, "--root", str(tmp_path / "typo")])
        assert ended.value.code == 1
        assert f"{tmp_path / 'typo'} holds no artifacts yet" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


def test_the_newest_results_are_shown_with_what_was_wrong(tmp_path: Path, capsys) -> None:
    source = with_broken_day(small_source(num_users=20, num_items=40, days=45), date(2024, 9, 20))
    world = small_world(tmp_path, source)
    with open_instance(world.root) as instance:
        days = [f"2024-09-{day}" for day in (18, 19, 20)]
        Runner(world, instance, Quiet()).run([Step("interaction_events", day) for day in days])
    out = tmp_path / "docs"
    with pytest.raises(SystemExit) as ended:
        main(["contracts", "docs", "--out", str(out), "--root", str(world.root)])
    assert ended.value.code == 0
    assert "index.html" in capsys.readouterr().out
    text = (out / "interaction_events.html").read_text()
    (row,) = [r for r in re.findall(r"<tr>.*?</tr>", text) if "2024-09-20" in r and ">contract<" in r]
    assert 'badge failed">failed' in row
    assert "at most half of a day&#x27;s lines are refused" in row
    (row,) = [r for r in re.findall(r"<tr>.*?</tr>", text) if "2024-09-19" in r and ">contract<" in r]
    assert 'badge passed">kept' in row
    assert "badge failed" in (out / "index.html").read_text()
