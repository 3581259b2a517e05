"""What a person reads whose device is not there, and when: before anything runs."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from sigma_assets.backfill import backfill
from sigma_assets.binding import Request, bind
from sigma_assets.commands import materialize
from sigma_assets.doctor import gpu_row, root_rows
from sigma_assets.progress import Reporter
from sigma_core.artifacts import write_json
from sigma_core.config import ConfigError, RuntimeConfig, load_config
from sigma_core.devices import answering_device, missing_device, training_device
from tests.toy_world import TOY_DAY, toy_source, write_tabular


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, number: int, built_for: str | None = "12.8") -> None:
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")


@pytest.mark.parametrize(
    ("number", "built_for", "device", "said"),
    [
        (0, None, "cuda", r"built for the CPU alone .* install torch from a CUDA index"),
        (0, "12.8", "cuda", r"finds no CUDA device here; see that `nvidia-smi` lists one"),
        (
            1,
            "12.8",
            "cuda:3",
            r"finds 1 CUDA device here, numbered from 0: cuda:0 \(A100\) \(arrived: 'cuda:3'\)",
        ),
        (2, "12.8", "cuda:2", r"finds 2 CUDA devices here.*cuda:1 \(A100\)"),
    ],
)
def test_a_device_that_is_not_there_is_named_with_what_is(
    number: int, built_for: str | None, device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, number, built_for)
    with pytest.raises(ConfigError, match=r"setting runtime\.device: .*" + said):
        training_device(RuntimeConfig(device=device))
    assert answering_device(RuntimeConfig(device=device)).type == "cpu", "a root is served anywhere"


def test_a_device_that_is_there_is_taken_and_its_products_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    pretend_gpus(monkeypatch, 2)
    assert missing_device("cpu") == missing_device("cuda") == missing_device("cuda:1") == ""
    training_device(RuntimeConfig(device="cuda", deterministic=False))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "mine")
    assert training_device(RuntimeConfig(device="cuda:1")) == torch.device("cuda", 1)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == "mine"


@pytest.mark.parametrize("typo", ["cude", "gpu", "mps", "cuda:x", "CUDA"])
def test_a_typo_is_told_what_there_is(typo: str) -> None:
    with pytest.raises(
        ConfigError, match=r"runtime\.device: needed cpu, cuda, or one of several like cuda:1"
    ):
        load_config("toy", None, (f"runtime.device={typo}",))


def test_a_root_that_moved_to_a_machine_without_its_device_is_told_before_any_step(tmp_path: Path) -> None:
    data, root = write_tabular(toy_source(), tmp_path / "data"), tmp_path / "root"
    bind(root, Request(source="tabular", path=data, profile="toy"))
    bound = json.loads((root / "root.json").read_text())
    write_json(root / "root.json", bound | {"settings": ["runtime.device=cuda"]})
    with pytest.raises(ConfigError, match=r"runtime\.device: .*set runtime\.device=cpu"):
        materialize(root, TOY_DAY, Request(), Reporter())
    with pytest.raises(ConfigError, match=r"runtime\.device: "):
        backfill(root, TOY_DAY, TOY_DAY, Request(), Reporter())
    (row,) = [row for row in root_rows(root) if row.name == "runtime.device"]
    assert row.status == "warn"
    assert "runtime.device=cpu" in row.remedy


def test_the_doctor_reads_a_root_of_a_gpu_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    bind(root, Request(source="tabular", path=write_tabular(toy_source(), tmp_path / "data"), profile="toy"))
    bound = json.loads((root / "root.json").read_text())
    write_json(root / "root.json", bound | {"settings": ["runtime.device=cuda"]})
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("sigma_assets.doctor.find_spec", lambda name: None)
    assert [row.status for row in root_rows(root)] == ["ok", "ok"]


def test_the_doctor_says_when_torch_cannot_use_the_gpu_that_is_there() -> None:
    assert gpu_row(False, "2.13.0+cpu").status == "ok"
    assert gpu_row(True, "2.13.0+cu128").status == "ok"
    assert gpu_row(True, "2.13.0+cpu").status == "warn"
