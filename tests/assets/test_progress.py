import io
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sigma_assets.progress import Reporter, progress_callback, show_on
from sigma_assets.tables import print_report, print_update


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_one_line_a_step() -> None:
    out = io.StringIO()
    reporter = Reporter(out)
    reporter.start("[1/1] codebooks")
    for done in range(1, 5):
        reporter.advance(done, 4, "levels")
    reporter.end("72 items")
    (line,) = out.getvalue().splitlines()
    assert line.startswith("[1/1] codebooks")
    assert line.endswith("s  72 items")


def test_a_terminal_gets_a_bar() -> None:
    out = Terminal()
    reporter = Reporter(out)
    reporter.start("step")
    reporter.advance(1, 2, "halves")
    reporter.advance(2, 2, "halves")
    assert f"[{'#' * 20}] 2/2 halves" in out.getvalue()


def test_assets_draw_on_the_terminal_or_write_to_the_runs_log() -> None:
    out, logged = Terminal(), list[str]()
    reporter = Reporter(out)
    reporter.start("step")
    show_on(reporter)
    try:
        progress_callback(logged.append)(3, 3, "steps")
    finally:
        show_on(None)
    assert "3/3 steps" in out.getvalue()
    progress_callback(logged.append)(2, 2, "users")
    assert logged == ["2/2 users"]


def test_a_redrawn_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What wraps stands on two lines, and only the last would be erased."""
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    reporter = Reporter(out)
    reporter.start("[ 43/47] sigma_base 2017-10-01")
    reporter.advance(2, 2, "steps of the base model")
    assert max(len(part) for part in out.getvalue().split("\r\033[K")) == 39


def test_on_a_narrow_terminal_a_report_loses_columns_and_no_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"sigma": 0.5, "popularity": 0.1, "personal_frequency_filled": 0.4}
    task = {
        "models": {name: {"recall@20": value} for name, value in models.items()}, "intervals": dict.fromkeys(list(models)[1:]),
        "instruction_lift": None, "underpowered": True, "num_targets": 1200, "ceiling@20": 1.0,
    }  # fmt: skip
    report = {
        "tasks": {"just_for_you": task}, "catalog": {"items": 9, "targets": 9, "targets_outside": 0},
        "as_of": "2017-10-23", "horizon_days": 7,
    }  # fmt: skip
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = {}
    for columns in ("80", "160"):
        monkeypatch.setenv("COLUMNS", columns)
        out = Terminal()
        print_report(report, out)
        shown[columns] = out.getvalue()
        assert "personal_frequency_filled" in shown[columns]
        assert "…" not in shown[columns]
    assert max(map(len, re.sub(r"\x1b\[\d*m", "", shown["80"]).splitlines())) <= 80
    assert ("just_for_you*" in shown["80"], "ceiling" in shown["160"].splitlines()[0]) == (True, True)


def test_brackets_in_a_products_name_are_shown_as_they_are() -> None:
    diff = SimpleNamespace(items={"added": ["i1"]}, examples={"added": ["[new] cookies [/b]"]}, num_same=2)
    out = io.StringIO()
    print_update(cast(Any, SimpleNamespace(diff=diff, texts_encoded=1)), out)
    assert "[new] cookies [/b]" in out.getvalue()
