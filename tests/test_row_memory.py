from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sigma_core.row_memory import RowMemory, remembered


def test_a_row_is_made_once_and_comes_back_bit_by_bit(tmp_path: Path) -> None:
    asked: list[int] = []

    def double(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return (rows * 2).astype(np.int32)

    inputs = np.arange(12, dtype=np.float32).reshape(4, 3)
    first = remembered(double, RowMemory(tmp_path))(inputs[:3])
    again = remembered(double, RowMemory(tmp_path))  # another process
    assert (again(inputs[::-1]) == double(inputs[::-1])).all()
    assert (again(inputs[:3]) == first).all()
    assert again(inputs).dtype == np.int32
    assert asked == [3, 1, 4]
    assert again(inputs[:0]).shape == (0, 3)


def test_a_broken_file_costs_its_rows_once_more(tmp_path: Path) -> None:
    memory = RowMemory(tmp_path)
    memory.keep(["ab" * 16], np.ones((1, 2), np.float32))
    assert RowMemory(tmp_path).known().keys() == {"ab" * 16}
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert RowMemory(tmp_path).known() == {}
    assert list(tmp_path.iterdir()) == []


def test_rows_without_their_keys_are_no_rows(tmp_path: Path) -> None:
    save_file({"keys": np.zeros((1, 16), np.uint8), "rows": np.ones((2, 2))}, tmp_path / "a.safetensors")
    save_file({"keys": np.zeros((1, 16), np.uint8)}, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").mkdir()
    assert RowMemory(tmp_path).known() == {}


def test_rows_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("os.fsync", lambda _: seen.append(len(list(tmp_path.glob("[!.]*")))))
    RowMemory(tmp_path).keep(["ab" * 16], np.ones((1, 2), np.float32))
    assert seen == [0]
