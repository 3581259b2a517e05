"""Image vectors from image files, by a transformers vision model: v_img for those who have pictures but no vectors.

One picture an item, named by its item id. Any vision model of transformers that is on this machine (ViT, DINOv2, SigLIP, CLIP);
nothing is downloaded. The result is the table `item_image_vectors.parquet` that the source `tabular` reads. Source: paper,
grounding (visual similarity) and tokenization (v_img); the model is the user's choice.
"""

import io
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from PIL import Image

from sigma_core import columns as c
from sigma_core.pretrained import find_pretrained
from sigma_core.tracking import Progress, no_progress

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
BATCH_ROWS: Final = 16
_UNREADABLE: Final = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class ImageError(ValueError):
    """The pictures cannot be used; the message says which and why."""


def image_files(folder: Path) -> dict[str, Path]:
    """Item id (a file's name without its ending) -> picture, sorted by id.

    Raises:
        ImageError: no folder, no picture in it, or two pictures of one item.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; needed one with a picture an item, named ITEM_ID.jpg.")
    out: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in out:
            raise ImageError(f"{folder} holds both {out[path.stem].name} and {path.name}; keep one.")
        out[path.stem] = path
    if not out:
        raise ImageError(
            f"{folder} holds no picture ({', '.join(SUFFIXES)}); needed ITEM_ID.jpg and the like."
        )
    return dict(sorted(out.items()))


def embed_images(
    files: Mapping[str, Path], model: str, progress: Progress = no_progress
) -> tuple[list[str], np.ndarray]:
    """Item ids (sorted) and float32 [N, d] unit rows, one a picture.

    A vector is the model's pooled output, or the mean over its patches where it pools nothing.

    Args:
        files: item id -> picture.
        model: a transformers folder with its image processor, or a Hub id in the local cache.
        progress: hears of every batch.

    Raises:
        PretrainedError: the model is not on this machine.
        ImageError: a picture cannot be read, or the model takes no pictures.
    """
    import torch
    from transformers import AutoImageProcessor

    found = find_pretrained(model)
    network = found.load()
    network = getattr(network, "vision_model", network)  # the half of CLIP and SigLIP that sees
    if network.main_input_name != "pixel_values":
        raise ImageError(
            f"model {model!r} reads {network.main_input_name}, not pictures; name a vision model."
        )
    try:
        with redirect_stderr(io.StringIO()):  # that torchvision is not installed is no news
            processor = AutoImageProcessor.from_pretrained(
                found.folder, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, ImportError) as error:
        raise ImageError(
            f"model {model!r} in {found.folder} has no image processor (preprocessor_config.json): {' '.join(str(error).split())[:200]}"
        ) from error
    _check_readable(files)
    ids, rows = sorted(files), []
    with torch.inference_mode():
        for start in range(0, len(ids), BATCH_ROWS):
            pictures = [_opened(files[item]) for item in ids[start : start + BATCH_ROWS]]
            pooled = _pooled(network(**processor(images=pictures, return_tensors="pt")))
            rows.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
            progress(start + len(pictures), len(ids), "pictures embedded")
    return ids, np.concatenate(rows).astype(np.float32)


def write_image_vectors(ids: list[str], vectors: np.ndarray, file: Path) -> None:
    """Writes `file` (item_id, vector) for the source `tabular`; a reader sees the old file or the whole new one."""
    table = pl.DataFrame({c.ITEM_ID: ids, "vector": list(vectors)}, schema_overrides={c.ITEM_ID: pl.String})
    tmp = file.with_name(f".{file.name}.tmp")
    table.write_parquet(tmp)
    tmp.replace(file)


def _check_readable(files: Mapping[str, Path]) -> None:
    # By their heads, in a moment, before the model works for hours; a picture that breaks off later is found when its turn comes.
    broken: list[tuple[Path, Exception]] = []
    for path in files.values():
        try:
            with Image.open(path):
                pass
        except _UNREADABLE as error:
            broken.append((path, error))
    if broken:
        path, reason = broken[0]
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ImageError(f"{path}{others} cannot be read as a picture: {reason}") from reason


def _opened(path: Path) -> Any:
    try:
        with Image.open(path) as picture:
            if picture.has_transparency_data:
                return _on_white(picture.convert("RGBA"))
            return picture.convert("RGB")
    except _UNREADABLE as error:
        raise ImageError(f"{path} cannot be read as a picture: {error}") from error


def _on_white(picture: Any) -> Any:
    # What is transparent has any colour in the file, mostly black; shops show it on white.
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _pooled(output: Any) -> Any:
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state.mean(dim=1) if pooled is None else pooled
