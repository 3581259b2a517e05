"""Claims about content-addressed embeddings, with an encoder that counts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sigma_core.grounding.embed import ItemEmbeddings, embed_items
from sigma_core.tracking import Progress, no_progress
from tests.no_lexical import MeaningAlone


class CountingEncoder(MeaningAlone):
    """Rows from the text's length; remembers what it was asked."""

    text_dim = 2

    def __init__(self, name: str = "e1") -> None:
        self.name = name
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], progress: Progress = no_progress) -> np.ndarray:
        self.asked += texts
        angle = np.array([len(text) for text in texts], dtype=np.float64)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    def digest(self) -> str:
        return self.name


def test_only_unknown_texts_are_encoded_and_rows_equal_those_from_scratch() -> None:
    encoder = CountingEncoder()
    yesterday, first = embed_items(["b", "a"], ["bread", "cola"], encoder)
    today, second = embed_items(["a", "c", "d", "b"], ["cola", "cola", "ham", "bun"], encoder, [yesterday])
    scratch, third = embed_items(["a", "b", "c", "d"], ["cola", "bun", "cola", "ham"], CountingEncoder())
    assert (first, second, third) == (2, 2, 3)
    assert sorted(encoder.asked) == ["bread", "bun", "cola", "ham"]
    assert today.item_ids == ["a", "b", "c", "d"]
    assert today.digest() == scratch.digest()


def test_rows_come_from_whichever_cache_has_the_text() -> None:
    encoder = CountingEncoder()
    first, _ = embed_items(["a", "b", "c"], ["one", "three", "eleven"], encoder)
    second, _ = embed_items(["d"], ["seventeen"], encoder)
    empty, _ = embed_items([], [], encoder)
    texts = ["seventeen", "eleven", "new here", "one"]
    mixed, encoded = embed_items(["w", "x", "y", "z"], texts, encoder, [empty, first, second])
    scratch, _ = embed_items(["w", "x", "y", "z"], texts, CountingEncoder())
    assert encoded == 1
    assert mixed.digest() == scratch.digest()


def test_vectors_of_another_encoder_are_not_copied() -> None:
    old, _ = embed_items(["a"], ["cola"], CountingEncoder("old"))
    _, encoded = embed_items(["a"], ["cola"], CountingEncoder("new"), [old])
    assert encoded == 1


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    vectors, _ = embed_items(["b", "a"], ["bread", "cola"], CountingEncoder())
    vectors.save(tmp_path)
    again = ItemEmbeddings.load(tmp_path)
    assert again.digest() == vectors.digest()
    assert again.summary() == {"items": 2, "distinct_texts": 2, "text_dim": 2}


def test_an_empty_catalog_is_no_error(tmp_path: Path) -> None:
    empty, encoded = embed_items([], [], CountingEncoder())
    empty.save(tmp_path)
    assert encoded == 0
    assert ItemEmbeddings.load(tmp_path).vectors.shape == (0, 2)


def test_double_ids_and_unsorted_artifacts_are_refused() -> None:
    with pytest.raises(ValueError, match="one text per distinct id"):
        embed_items(["a", "a"], ["x", "y"], CountingEncoder())
    with pytest.raises(ValueError, match="ascending"):
        ItemEmbeddings(["b", "a"], ["h", "h"], np.zeros((2, 2)), "e")
    with pytest.raises(ValueError, match="aligned"):
        ItemEmbeddings(["a"], ["h", "h"], np.zeros((2, 2)), "e")
