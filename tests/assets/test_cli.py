import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sigma_assets.cli import main, one_line
from sigma_assets.cli_app import remembered_threads
from sigma_assets.cli_serving import shown_list
from sigma_assets.demo import activation
from sigma_assets.runner import StepError
from tests.assets.roots import small_world
from tests.toy_world import toy_source, write_tabular

VERBS = (
    "materialize", "catalog-update", "recommend", "search", "evaluate", "demo", "config", "doctor", "serve", "nearline", "ui",
    "rollback", "promote", "promotions",
)  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """Standard error of a call that ends with `code`."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code
    return capsys.readouterr().err


def test_help_teaches_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(verb in out for verb in VERBS)
    assert "sigma demo" in out


def test_every_verb_takes_a_root(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert "--root" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (("recommend", "--user", "u1"), "no recommendations yet"),
        (("evaluate", "--as-of", "2024-10-20", "--json", "report.json"), "holds no artifacts yet"),
        (("ui",), "holds no artifacts yet"),
        (("serve",), "holds no artifacts yet"),
        (("nearline", "--events", "nowhere.jsonl"), "does not exist"),
        (("nearline",), "--events"),
        (("ui", "--port", "99999999"), "65535"),
        (("recommend", "--user", "u1", "--n", "3"), "no recommendations yet"),
        (("evaluate", "--as-of", "2024-10-20", "--json", "r.json", "--users", "5"), "holds no artifacts yet"),
        (("abtest", "analyse", "--log", "nowhere", "--detect", "nan"), "above 0"),
        (("abtest", "simulate", "--control", "a", "--candidate", "b", "--detect", "-1"), "above 0"),
        (("serve", "--host", "0.0.0.0"), "SIGMA_API_KEYS"),
        (("serve", "--api-keys-file", "nowhere.txt"), "nowhere.txt"),
        (("serve", "--set", "training.lora_steps=3"), "section http"),
        (("materialize", "--as-of", "yesterday"), "not a date"),
        (
            ("materialize", "--as-of", "2024-10-20", "--source", "nowhere"),
            "complete_journey, movielens, amazon, tabular",
        ),
        (("materialize", "--as-of", "2024-10-20", "--source", "tabular"), "--path"),
        (("materialize", "--as-of", "2024-10-20", "--profile", "huge"), "demo, toy, standard"),
        (("materialize", "--as-of", "2024-10-20", "--set", "training.lora_steps"), "section.key=value"),
        (("materialize",), "--as-of"),
        (("nonsense",), "nonsense"),
    ],
)
def test_an_error_is_one_clear_line_and_exit_code_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    needle: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    err = said(capsys, *arguments)
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert needle in err
    assert "Traceback" not in err


def test_a_missing_event_file_is_told_without_the_name_of_an_exception(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said(capsys, "nearline", "--events", "nowhere.jsonl").startswith("error: --events nowhere.jsonl")


def test_another_source_for_a_bound_root_names_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(small_world(tmp_path).root)
    err = said(capsys, "materialize", "--root", root, "--as-of", "2024-10-20", "--source", "complete_journey")
    assert "tabular" in err
    assert "complete_journey" in err


def test_a_day_outside_the_data_names_the_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(small_world(tmp_path).root)
    assert "2024-09-09 to 2024-10-23" in said(capsys, "materialize", "--root", root, "--as-of", "2025-10-20")
    assert "too early" in said(capsys, "materialize", "--root", root, "--as-of", "2024-09-15")
    export = ("--export", str(tmp_path / "items.csv"))
    for day in ("2024-09-08", "2024-10-24"):
        err = said(capsys, "catalog-update", "--root", root, "--date", day, *export)
        assert "2024-09-09 to 2024-10-23" in err
    assert not (tmp_path / "items.csv").exists()
    assert not said(capsys, "catalog-update", "--root", root, "--date", "2024-10-23", *export, code=0)
    assert (tmp_path / "items.csv").read_text().startswith("item_id,")
    assert "not materialized" in said(
        capsys, "evaluate", "--root", root, "--as-of", "2024-10-10", "--json", str(tmp_path / "r.json")
    )


def test_a_date_that_cannot_be_made_binds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_tabular(toy_source(), tmp_path / "data")
    arguments = (
        "--root",
        str(tmp_path / "new"),
        "--source",
        "tabular",
        "--path",
        str(data),
        "--as-of",
        "2030-01-01",
    )
    assert "2024-03-01 to 2024-03-08" in said(capsys, "materialize", *arguments)
    assert not (tmp_path / "new" / "root.json").exists()


def test_recommending_imports_no_orchestrator(tmp_path: Path) -> None:
    code = (
        "import sys; from sigma_assets.cli import main\n"
        "try: main(['recommend', '--user', 'u', '--root', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "import sigma_core.serving.engine, sigma_core.training.checkpoint, sigma_core.grounding.encoder\n"
        "print(sorted({'dagster', 'peft', 'great_expectations', 'wandb', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_imports_no_number_library() -> None:
    code = "import sys; import sigma_assets.cli\nprint(sorted({'numpy', 'polars', 'dagster', 'torch', 'rich.console'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.stdout.strip() == "[]"


def test_a_root_remembers_its_threads(tmp_path: Path) -> None:
    assert remembered_threads(tmp_path) == 2
    (tmp_path / "root.json").write_text(json.dumps({"settings": ["data.country=US", "runtime.threads=1"]}))
    assert remembered_threads(tmp_path) == 1


def test_foreign_errors_name_their_type_ours_speak_for_themselves() -> None:
    assert one_line(StepError("sft_shards[2024-10-01]:\n no answer")) == "sft_shards[2024-10-01]: no answer"
    full = OSError(errno.ENOSPC, "No space left on device", "a.json")
    assert one_line(full).startswith(
        "[Errno 28] No space left on device: 'a.json'. Nothing half written counts. Make room"
    )
    assert one_line(OSError("disk full")).startswith("OSError: disk full (run again with -v")


def test_the_demo_says_how_to_get_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.chdir(tmp_path)
    assert activation() == ""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").touch()
    assert activation().endswith("source bin/activate\n")
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sigma")
    assert activation() == ""


def test_a_list_for_people_shows_rank_title_and_place() -> None:
    row = {
        "rank": 1,
        "item_id": "item7",
        "title": "Ice Cream " * 9,
        "score": 0.5,
        "prefix": [3],
        "prefix_probability": 0.25,
    }
    line = shown_list([row]).splitlines()[1]
    assert line.startswith("  1  Ice Cream")
    assert "..." in line
    assert line.endswith("3 (0.250)")
