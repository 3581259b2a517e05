from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sigma_core.grounding.text_cache import RememberingEncoder
from sigma_core.tracking import Progress, no_progress
from tests.no_lexical import MeaningAlone


class Lengths(MeaningAlone):
    """Encodes a text as its length; counts what it was asked."""

    text_dim = 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], progress: Progress = no_progress) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    def digest(self) -> str:
        return "lengths"


def test_a_text_is_encoded_once_in_the_life_of_the_folder(tmp_path: Path) -> None:
    first = Lengths()
    assert RememberingEncoder(first, tmp_path).encode(["a", "bb", "a"])[:, 0].tolist() == [1, 2, 1]
    assert first.asked == ["a", "bb"]
    second = Lengths()
    remembering = RememberingEncoder(second, tmp_path)
    assert remembering.encode(["ccc", "bb"])[:, 0].tolist() == [3, 2]
    assert second.asked == ["ccc"]
    assert (remembering.num_encoded, remembering.num_recalled) == (1, 1)
    assert remembering.encode([]).shape == (0, 2)


def test_another_encoder_and_a_broken_file_remember_nothing(tmp_path: Path) -> None:
    RememberingEncoder(Lengths(), tmp_path).encode(["a"])

    class Other(Lengths):
        def digest(self) -> str:
            return "other"

    other = Other()
    RememberingEncoder(other, tmp_path).encode(["a"])
    assert other.asked == ["a"]
    for path in (tmp_path / "lengths").iterdir():
        path.write_bytes(b"half a fi")
    again = Lengths()
    RememberingEncoder(again, tmp_path).encode(["a"])
    assert again.asked == ["a"]
