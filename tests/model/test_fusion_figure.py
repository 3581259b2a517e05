"""The figure says what the trace says: which streams are there, their gates, the prefix."""

from pathlib import Path

import numpy as np
import torch

from sigma_core.model.fusion_figure import draw_fusion, example_rows, fusion_png
from tests.model.test_fusion import fusion, streams


def titles(row: int, figure: object) -> list[str]:
    return [axes.get_title() for axes in figure.axes[5 * row : 5 * row + 5]]  # type: ignore[attr-defined]


def test_streams_flags_gates_vector_and_prefix_are_drawn() -> None:
    given = streams([True, False], [True, False])
    trace = fusion().trace(given)
    with torch.no_grad():
        figure = draw_fusion(
            given, trace._replace(gates_N3=trace.gates_N3.detach(), fused_NE=trace.fused_NE.detach()), ["known", "new"],
            np.array([[7, 2], [0, 4]]),
        )  # fmt: skip
    assert titles(0, figure) == [
        "v_text, 6 wide",
        "v_ID, 4 wide",
        "v_img, 5 wide",
        "gates",
        "<a_7><b_2> v~, 3 wide",
    ]
    assert titles(1, figure)[1:3] == ["v_ID: absent (flag 0)", "v_img: absent (flag 0)"]
    assert titles(1, figure)[4] == "<a_0><b_4> v~, 3 wide"
    shown = [text.get_text() for text in figure.axes[3].texts]
    assert shown == [f"{gate:.2f}" for gate in trace.gates_N3[0].tolist()]
    assert [text.get_text() for text in figure.axes[8].texts] == ["1.00", "0.00", "0.00"]
    assert figure.axes[0].get_ylabel() == "known"


def test_the_best_known_and_the_least_known_item_are_chosen() -> None:
    assert example_rows(np.array([False, True, True]), np.array([False, False, True])) == [2, 0]
    assert example_rows(np.array([True, True]), np.array([False, False])) == [0]


def test_it_is_a_png_the_same_each_time_and_drawn_once_for_equal_numbers(tmp_path: Path) -> None:
    class Features:
        item_ids = ("i1", "i2", "i3")
        has_id, has_image = np.array([False, True, True]), np.array([False, False, True])
        text, id = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
        image = np.ones((3, 5), np.float32)
        prefix = np.array([[1], [2], [3]])

    Features.id = Features.id[:, :4]
    first, second = (fusion_png(fusion(), Features()) for _ in range(2))  # type: ignore[arg-type]
    assert first.startswith(b"\x89PNG")
    assert first == second
    kept = fusion_png(fusion(), Features(), tmp_path)  # type: ignore[arg-type]
    assert kept == first
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"drawn before")
    assert fusion_png(fusion(), Features(), tmp_path) == b"drawn before"  # type: ignore[arg-type]
    Features.prefix = np.array([[1], [2], [4]])
    assert fusion_png(fusion(), Features(), tmp_path) != b"drawn before"  # type: ignore[arg-type]
