from pathlib import Path

import numpy as np

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
