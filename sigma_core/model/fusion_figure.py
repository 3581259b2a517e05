"""The figure of the fusion, drawn from real items: streams, presence flags, gates, the fused vector, the prefix.

Draws what `ProjectAndFuse.trace` says and computes nothing of its own. matplotlib is imported when it is drawn, on the Agg
canvas. Source: paper.md, "What a referee asked for".
"""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sigma_core.artifacts import digest_arrays, digest_json, write_bytes
from sigma_core.model.fusion import FusionTrace, ItemStreams, ProjectAndFuse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sigma_core.tokenization.item_features import ItemFeatures

STREAMS: Final = ("v_text", "v_ID", "v_img")
_STRIP_ROWS: Final = 8  # a vector is drawn as a picture of so many rows
_DPI: Final = 90
_DRAWING: Final = 2  # raise it when equal numbers are drawn otherwise


def example_rows(has_id: np.ndarray, has_image: np.ndarray) -> list[int]:
    """The first item with the most streams, and the first with the fewest where that is another."""
    count = 1 + has_id.astype(int) + has_image.astype(int)
    return list(dict.fromkeys((int(count.argmax()), int(count.argmin()))))


def fusion_png(fusion: ProjectAndFuse, features: "ItemFeatures", kept: Path | None = None) -> bytes:
    """A PNG of one or two items of the features, a row each: the best known one and the least known one.

    With a folder `kept`, the picture of equal numbers and names is read from there where it was drawn before: most catalog
    updates touch neither item.
    """
    import torch

    from sigma_core.model.sigma import item_streams

    rows = example_rows(features.has_id, features.has_image)
    names = [f"item {features.item_ids[row]}" for row in rows]
    streams = item_streams(_of_rows(features, rows))
    with torch.inference_mode():
        trace = fusion.trace(streams)
    prefix_NP = features.prefix[rows]
    drawn = {**streams._asdict(), **trace._asdict(), "prefix": torch.as_tensor(prefix_NP)}
    arrays = {name: value.numpy() for name, value in drawn.items() if value is not None}
    path = kept / f"{digest_json([_DRAWING, names, digest_arrays(arrays)])}.png" if kept else None
    if path is not None and path.exists():
        return path.read_bytes()
    buffer = io.BytesIO()
    draw_fusion(streams, trace, names, prefix_NP).savefig(buffer, format="png")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue())
    return buffer.getvalue()


def draw_fusion(
    streams: ItemStreams, trace: FusionTrace, names: Sequence[str], prefix_NP: np.ndarray
) -> "Figure":
    """The figure, a row an item: three streams (an absent one is said to be absent), the gates, v~ and the prefix.

    Args:
        streams: of N items.
        trace: what the fusion made of them.
        names: N names.
        prefix_NP: int [N, P], their prefixes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 0.5 + 1.5 * len(names)), dpi=_DPI)
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.12, top=0.87, wspace=0.36, hspace=0.45)
    figure.text(
        0.04, 0.03, "a square a number: blue above 0, red below, each vector on its own scale", fontsize=7
    )
    grid = figure.subplots(len(names), 5, squeeze=False, width_ratios=(3, 3, 3, 2, 3))
    flags_N3 = [(True, bool(i), bool(v)) for i, v in zip(streams.has_id_N, streams.has_image_N, strict=True)]
    for row, name in enumerate(names):
        vectors = (streams.text_NT[row], streams.id_NI[row], streams.image_NV[row])
        for place, (vector, present) in enumerate(zip(vectors, flags_N3[row], strict=True)):
            _strip(grid[row, place], vector.numpy() if present else None, STREAMS[place])
        _gates(grid[row, 3], trace.gates_N3[row].tolist())
        prefix = "".join(f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(prefix_NP[row]))
        _strip(grid[row, 4], trace.fused_NE[row].numpy(), f"{prefix} v~")
        grid[row, 0].set_ylabel(name, fontsize=8)
    return figure


def _of_rows(features: "ItemFeatures", rows: Sequence[int]) -> SimpleNamespace:
    """What `item_streams` reads, of some rows."""
    image = features.image
    return SimpleNamespace(
        item_ids=[features.item_ids[row] for row in rows],
        text=features.text[rows],
        id=features.id[rows],
        has_id=features.has_id[rows],
        image=None if image is None else image[rows],
        has_image=features.has_image[rows],
    )


def _strip(axes: "Axes", vector: np.ndarray | None, title: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if vector is None or not len(vector):
        axes.set_title(f"{title}: absent (flag 0)", fontsize=8)
        axes.set_facecolor("#eeeeee")
        return
    padded = np.full(-(-len(vector) // _STRIP_ROWS) * _STRIP_ROWS, np.nan)
    padded[: len(vector)] = vector
    most = float(np.abs(vector).max()) or 1.0
    axes.imshow(padded.reshape(_STRIP_ROWS, -1), aspect="auto", cmap="RdBu", vmin=-most, vmax=most)
    axes.set_title(f"{title}, {len(vector)} wide", fontsize=8)


def _gates(axes: "Axes", gates: list[float]) -> None:
    bars: Any = axes.barh(STREAMS, gates, color=("#2471a3", "#1e8449", "#b9770e"))
    axes.bar_label(bars, [f"{gate:.2f}" for gate in gates], fontsize=7, padding=2)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25)
    axes.set_xticks([])
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("gates", fontsize=8)
