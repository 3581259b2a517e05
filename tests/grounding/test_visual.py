"""The visual view and the vectors under it, on vectors by hand and on drawn pictures."""

import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from sigma_core import columns as c
from sigma_core.config import GroundingConfig
from sigma_core.data.sources.tabular import Tabular
from sigma_core.grounding.image_vectors import ImageError, embed_images, image_files, write_image_vectors
from sigma_core.grounding.relevance_pairs import build_relevance_pairs
from sigma_core.grounding.views.visual import mutual_neighbors
from tests.grounding.test_relevance_pairs import SHOP, grill_parties
from tests.model.tiny_llm import save_tiny_llm
from tests.toy_world import toy_source, write_tabular

ONLY_VISUAL = GroundingConfig(view_weights={"visual": 1.0}, pairs_per_view=50)


def angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def test_mutual_neighbours_by_hand() -> None:
    """Angles 0, 10, 30: with one neighbour each, 0 and 10 choose each other; 30 chooses 10, which does not choose it."""
    vectors = np.array([angle(0), angle(10), angle(30)]) * [[3.0], [1.0], [0.5]]
    row, col, cosine = mutual_neighbors(vectors, 1)
    assert (row.tolist(), col.tolist()) == ([0], [1])
    assert cosine[0] == pytest.approx(np.cos(np.radians(10)))
    assert [pair[:2] for pair in zip(*mutual_neighbors(vectors, 2), strict=True)] == [(0, 1), (0, 2), (1, 2)]
    assert (
        len(mutual_neighbors(np.array([angle(0), angle(120)]), 1)[0]) == 0
    )  # nearest, and yet nothing alike
    assert len(mutual_neighbors(vectors[:1], 3)[0]) == 0


def test_of_equal_neighbours_the_smaller_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five equal rows, two neighbours each: 0 and 1 are everybody's, so 2 is nobody's but theirs."""
    for block in (5, 100):  # one row of the matrix at a time, or all
        monkeypatch.setattr("sigma_core.grounding.views.visual._BLOCK", block)
        row, col, _ = mutual_neighbors(np.tile(angle(20), (5, 1)), 2)
        assert list(zip(row.tolist(), col.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]


def images() -> tuple[list[str], np.ndarray]:
    """i1 looks like i2, i4 like i5; i3 has no picture, i9 is not in the catalog, i6's vector is empty."""
    ids = ["i1", "i2", "i4", "i5", "i6", "i9"]
    return ids, np.array([angle(0), angle(5), angle(90), angle(85), [0.0, 0.0], angle(1)], dtype=np.float32)


def test_pairs_are_of_catalog_items_that_look_alike() -> None:
    found = build_relevance_pairs(grill_parties(), SHOP, {}, {}, ONLY_VISUAL, 17, images())  # type: ignore[arg-type]
    near = found.frame.sort(c.WEIGHT, descending=True).head(2)
    assert {tuple(sorted(row)) for row in near.select(c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID).iter_rows()} == {
        ("i1", "i2"),
        ("i4", "i5"),
    }
    assert set(found.frame[c.ANCHOR_ITEM_ID]) | set(found.frame[c.POSITIVE_ITEM_ID]) <= {
        "i1",
        "i2",
        "i4",
        "i5",
    }
    assert not found.frame[c.IS_PSEUDO].any()
    assert found.frame[c.WEIGHT].min() > 0


def test_without_images_the_view_is_silent_and_the_others_unchanged() -> None:
    config = GroundingConfig(pairs_per_view=50)
    with_images, without = (
        build_relevance_pairs(grill_parties(), SHOP, {}, {"fry": ["i1"]}, config, 17, given)  # type: ignore[arg-type]
        for given in (images(), None)
    )
    others = with_images.frame.filter(pl.col(c.VIEW) != "visual")
    assert others.equals(without.frame)
    assert "visual" not in without.summary()["by_view"]
    shares = with_images.summary()["share_by_view"]
    assert shares["visual"] == pytest.approx(1 - others.height / with_images.frame.height, abs=1e-4)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one-layer ViT of 32 x 32 pixels with its image processor."""
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    shape = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ViTModel(shape, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Two red discs of slightly different size, two blue bars, and a note that is no picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, color, box in (
        ("dia_a.png", "red", (10, 10, 54, 54)), ("dia_b.jpg", "red", (12, 12, 54, 54)),
        ("ice_a.png", "blue", (0, 28, 64, 36)), ("ice_b.webp", "blue", (0, 27, 64, 36)),
    ):  # fmt: skip
        picture = Image.new("RGB", (64, 64), "white")
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if color == "red" else draw.rectangle)(box, fill=color)
        picture.save(folder / name)
    (folder / "readme.txt").write_text("no picture")
    return folder


def test_drawn_pictures_that_look_alike_are_neighbours(vision: Path, drawn: Path, tmp_path: Path) -> None:
    ids, vectors = embed_images(image_files(drawn), str(vision))
    assert ids == ["dia_a", "dia_b", "ice_a", "ice_b"]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    row, col, _ = mutual_neighbors(vectors, 1)
    assert list(zip(row.tolist(), col.tolist(), strict=True)) == [(0, 1), (2, 3)]
    again = embed_images(image_files(drawn), str(vision))[1]
    assert (again == vectors).all()
    data = write_tabular(toy_source(), tmp_path / "data")
    write_image_vectors(ids, vectors, data / "item_image_vectors.parquet")
    read = Tabular(data).image_vectors()
    assert read is not None
    assert read[0] == ids
    assert (read[1] == vectors).all()


def test_pictures_that_cannot_be_used_are_named(vision: Path, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is no folder"):
        image_files(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="holds no picture"):
        image_files(tmp_path)
    (drawn / "ice_a.jpg").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"both ice_a.jpg and ice_a.png"):
        image_files(drawn)
    with pytest.raises(ImageError, match="cannot be read as a picture"):
        embed_images({"ice_a": drawn / "ice_a.jpg"}, str(vision))
    bomb = drawn / "bomb.bmp"
    Image.new("1", (8, 8)).save(bomb)
    head = bytearray(bomb.read_bytes())
    head[18:26] = struct.pack("<ii", 60_000, 60_000)
    bomb.write_bytes(bytes(head))
    with pytest.raises(ImageError, match=r"ice_a.jpg and 1 more cannot be read"):
        embed_images({"a": drawn / "ice_a.png", "b": drawn / "ice_a.jpg", "c": bomb}, str(vision))
    with pytest.raises(ImageError, match="decompression bomb"):
        embed_images({"c": bomb}, str(vision))
    llm = save_tiny_llm(tmp_path / "llm")
    with pytest.raises(ImageError, match="name a vision model"):
        embed_images({"a": drawn / "ice_a.png"}, str(llm))


def test_vectors_do_not_go_through_a_pooler_that_the_model_has_no_weights_for(
    vision: Path, drawn: Path
) -> None:
    """A ViT for classification has none; transformers would make up a random one, another each time."""
    import torch

    rows = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rows.append(embed_images(image_files(drawn), str(vision))[1])
    assert (rows[0] == rows[1]).all()


def test_pictures_of_any_kind_are_read_and_what_is_transparent_is_white(vision: Path, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    white = Image.new("RGB", (40, 40), "white")
    clear.save(tmp_path / "clear.png")
    white.save(tmp_path / "white.png")
    white.convert("CMYK").save(tmp_path / "print.jpg")
    white.convert("P").save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (40, 40))]
    )
    Image.new("L", (1, 3), 255).save(tmp_path / "thin.bmp")
    ids, rows = embed_images(image_files(tmp_path), str(vision))
    assert len(ids) == 5
    np.testing.assert_allclose(rows, np.tile(rows[-1], (5, 1)), atol=1e-4)
