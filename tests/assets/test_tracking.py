import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sigma_assets.tracked import flat, record, report_tables
from sigma_assets.tracking import NullRun, WandbTracker, open_tracker, tracking_mode
from sigma_core.artifacts import ArtifactStore
from sigma_core.tracking import NullTracker
from sigma_core.versions import git_commit
from tests.assets.wandb_stub import Stub, read_offline


@pytest.fixture(autouse=True)
def _no_wandb_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "disabled"),
        ({"WANDB_API_KEY": "k" * 40}, "online"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "k" * 40}, "offline"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
    ],
)
def test_the_environment_decides_whether_runs_are_tracked(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], mode: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracking_mode("disabled") == mode


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ValueError, match=r"sometimes.*online, offline, disabled"):
        tracking_mode("disabled")


def test_disabled_keeps_nothing(tmp_path: Path) -> None:
    tracker = open_tracker("disabled", tmp_path / "wandb", name="a/1", group="1", config={})
    assert isinstance(tracker, NullTracker)
    assert not (tmp_path / "wandb").exists()


def whole(path: Path) -> list[Any]:
    """The records of an offline run once W&B's service has written its end, which it does a moment after `finish` returns."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        records = list(read_offline(path))
        if any(one.WhichOneof("record_type") == "exit" for one in records):
            return records
        time.sleep(0.05)
    raise AssertionError(f"{path} has no end after 30 s: {len(records)} records")


def stepped(path: Path) -> dict[str, dict[int, object]]:
    """Every curve of an offline run: name -> step -> value."""
    curves: dict[str, dict[int, object]] = {}
    for one in whole(path):
        if one.WhichOneof("record_type") != "history":
            continue
        items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in one.history.item}
        step = items.pop("_step", one.history.step.num)
        for name, value in items.items():
            curves.setdefault(name, {})[step] = value
    return curves


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.close()


def test_an_offline_run_holds_everything_and_asks_no_server(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, stub.url)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter.json").write_text("{}")
    run = open_tracker(
        "offline",
        tmp_path / "wandb",
        name="sigma_base/2024-10-01",
        group="2024-10-01",
        config={"inputs": {"a/1": "d"}},
    )
    for step, loss in enumerate((1.5, 1.25, 1.0)):
        run.log({"ntp": loss, "learning_rate": 0.1}, step)
    run.table("recall", [{"view": "search", "after": 0.5}])
    run.summary({"valid_beams": 1.0})
    run.artifact("lora_checkpoint", "adapter", folder, ["2024-10-01", "latest"])
    run.close()
    assert str(tmp_path / "wandb") in run.url
    (path,) = (tmp_path / "wandb").rglob("run-*.wandb")
    curves = stepped(path)
    assert curves["ntp"] == {0: 1.5, 1: 1.25, 2: 1.0}
    assert set(curves["learning_rate"]) == {0, 1, 2}
    assert any(name.startswith("recall") for name in curves)
    records = [(one.WhichOneof("record_type"), one) for one in whole(path)]
    (begun,) = [one.run for kind, one in records if kind == "run"]
    assert (begun.display_name, begun.run_group, begun.job_type) == (
        "sigma_base/2024-10-01", "2024-10-01", "sigma_base"
    )  # fmt: skip
    assert any(update.key == "inputs" for update in begun.config.update)
    sent = [one.artifact for kind, one in records if kind == "artifact"]
    adapter = next(one for one in sent if one.name == "lora_checkpoint")
    assert set(adapter.aliases) == {"2024-10-01", "latest"}
    assert stub.asked == []


def test_an_online_run_arrives_at_the_server(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    done = in_a_process(tmp_path, WANDB_BASE_URL=stub.url, WANDB_API_KEY="a" * 40)
    assert done.returncode == 0, done.stderr[-2000:]
    assert stub.url in done.stdout, "where to see it"
    assert [row["ntp"] for row in stub.history if "ntp" in row][:3] == [0.0, 1.0, 2.0]
    assert any("2024-10-28" in json.dumps(query) for query in stub.queries), "the group"


TRAINING = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.WARNING)
import sigma_assets.tracking as tracking
tracking.INIT_SECONDS, tracking.FINISH_SECONDS = 5, 5
run = tracking.open_tracker(
    tracking.tracking_mode("offline"), Path(sys.argv[1]) / "wandb", name="lora_checkpoint/2024-10-28", group="2024-10-28",
    config={})
for step in range(int(sys.argv[2])):
    run.log({"ntp": float(step), "text": "x" * 500}, step)
run.close()
print("trained", run.url, flush=True)
"""


def in_a_process(
    folder: Path, steps: int = 3, limit: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A training with a tracker, on a disk on which no file grows beyond `limit` bytes."""

    def small_disk() -> None:
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    places = {f"WANDB_{name}_DIR": str(folder / name) for name in ("CACHE", "DATA", "CONFIG")}
    return subprocess.run(
        [sys.executable, "-B", "-c", TRAINING, str(folder), str(steps)],
        env=kept | places | environment | {"PYTHONPATH": "."},
        preexec_fn=small_disk,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_a_server_that_is_down_fails_no_training(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = in_a_process(tmp_path, WANDB_BASE_URL=nobody, WANDB_API_KEY="a" * 40)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained" in done.stdout
    assert "going on without it" in done.stderr


def test_a_full_disk_fails_no_training(tmp_path: Path) -> None:
    done = in_a_process(tmp_path, steps=400, limit=30_000, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained" in done.stdout


def test_a_run_with_a_failed_call_is_finished_all_the_same() -> None:
    class Run:
        dir, settings, ended = "here", SimpleNamespace(mode="offline"), 0

        def log(self, *_: object, **__: object) -> None:
            raise OSError("no")

        def finish(self, exit_code: int) -> None:
            self.ended += 1

    run = Run()
    tracker = WandbTracker(run)
    tracker.log({"loss": 1.0})
    tracker.close()
    assert run.ended == 1


def test_figures_of_a_value_are_flat_names() -> None:
    assert flat({"a": {"b": 1, "c": {"d": 0.5}}, "e": "x", "list": [1]}) == {"a/b": 1, "a/c/d": 0.5, "e": "x"}


def test_a_report_becomes_two_tables() -> None:
    task = {
        "num_targets": 4,
        "models": {"sigma": {"recall@20": 0.5}, "popularity": {"recall@20": None}},
        "intervals": {"popularity": {"recall@20": [0.1, 0.2]}, "item_knn": {"recall@20": None}},
    }
    tables = report_tables({"tasks": {"query": task}})
    assert tables["scores"][0] == {"task": "query", "model": "sigma", "targets": 4, "recall@20": 0.5}
    assert [(row["low"], row["high"]) for row in tables["difference_to_opponents"]] == [
        (0.1, 0.2),
        (None, None),
    ]


def test_what_a_stage_leaves_is_named_after_it_and_its_date(tmp_path: Path) -> None:
    class Kept(NullRun):
        url = "somewhere"

        def __init__(self) -> None:
            self.figures: dict[str, Any] = {}
            self.artifacts: list[tuple[str, str, set[str], list[str]]] = []

        def summary(self, figures: Mapping[str, Any]) -> None:
            self.figures |= figures

        def artifact(self, name: str, kind: str, folder: Path, aliases: Sequence[str]) -> None:
            self.artifacts.append((name, kind, {path.name for path in folder.iterdir()}, list(aliases)))

    class Value:
        def summary(self) -> dict[str, Any]:
            return {"probe": {"valid": 1.0}}

        def save(self, directory: Path) -> None:
            (directory / "weights").write_text("1")

    store = ArtifactStore(tmp_path)
    folder = store.path("semantic_id_map", "2024-10-28")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    run = Kept()
    record(run, store, "lora_checkpoint", "2024-10-28", cast(Any, Value()))
    assert run.figures == {"probe/valid": 1.0}
    assert run.artifacts == [
        ("lora_checkpoint", "adapter", {"weights"}, ["2024-10-28", "latest"]),
        ("semantic_id_map", "semantic_id_map", {"manifest.json"}, ["2024-10-28", "latest"]),
    ]
    record(run, store, "promoted_model", "2024-10-28", cast(Any, Value()))
    assert run.artifacts[-1] == (
        "promoted_model",
        "adapter",
        {"weights"},
        ["2024-10-28", "latest", "promoted"],
    )
    later = store.path("promoted_model", "2024-10-29")
    later.mkdir(parents=True)
    (later / "manifest.json").write_text("{}")
    record(run, store, "promoted_model", "2024-10-28", cast(Any, Value()))
    assert run.artifacts[-1][-1] == ["2024-10-28"], "made again, it is not the newest"


def test_the_commit_of_a_checkout_is_known() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}|", git_commit())
