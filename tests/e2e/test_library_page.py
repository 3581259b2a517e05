"""docs/library.md works as it stands: its blocks run in order, in one namespace, beside a root named `var`."""

import re
from pathlib import Path

import pytest

from tests.e2e.slice import DAY

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"


def test_the_library_page_runs(
    made: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "var").symlink_to(made[0])
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), space)
    assert space["day"].day == DAY
    assert [round(one.prefix_probability * one.item_probability, 6) for one in space["ranked"]] == [
        round(one.score, 6) for one in space["ranked"]
    ]
    assert "just_for_you" in capsys.readouterr().out
