from pathlib import Path

import pytest

from sigma_assets.tracking import open_tracker, tracking_mode
from sigma_core.tracking import NullTracker


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


def test_an_offline_run_is_on_disk_when_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    tracker = open_tracker(
        "offline", tmp_path / "wandb", name="sigma_base/2024-10-01", group="2024-10-01", config={"a": 1}
    )
    tracker.log({"loss": 1.5}, 0)
    tracker.table("recall", [{"view": "search", "after": 0.5}])
    tracker.close()
    (run,) = (tmp_path / "wandb").rglob("run-*.wandb")
    assert run.stat().st_size > 100
