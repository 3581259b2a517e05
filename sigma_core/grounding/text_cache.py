"""An encoder that remembers: texts it has read before come from files, whoever asked for them.

A row of an encoder depends on its text alone, so this changes what a step costs and never what it makes. Rows of one encoder
lie in a folder named by its digest. Our choice.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sigma_core.grounding.embed import TextEncoder, text_hash
from sigma_core.grounding.lexical import LexicalHash
from sigma_core.row_memory import RowMemory
from sigma_core.tracking import Progress, no_progress


class RememberingEncoder:
    """`encoder` with a memory in `folder`.

    Attributes:
        num_encoded: distinct texts that really went through the encoder.
        num_recalled: distinct texts that came from the memory.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self._encoder, self._digest = encoder, encoder.digest()
        self._memory = RowMemory(folder / self._digest)
        self.num_encoded = self.num_recalled = 0

    @property
    def text_dim(self) -> int:
        """Width of a row."""
        return self._encoder.text_dim

    @property
    def lexical(self) -> LexicalHash:
        """The encoder's own: hashing words costs nothing worth remembering."""
        return self._encoder.lexical

    def digest(self) -> str:
        """The encoder's own."""
        return self._digest

    def encode(self, texts: Sequence[str], progress: Progress = no_progress) -> np.ndarray:
        """float32 [len(texts), text_dim], bit by bit what the encoder gives."""
        known = self._memory.known()
        hashes = [text_hash(text) for text in texts]
        todo = {h: text for h, text in zip(hashes, texts, strict=True) if h not in known}
        self.num_recalled += len(set(hashes)) - len(todo)
        self.num_encoded += len(todo)
        if todo:
            rows = self._encoder.encode(list(todo.values()), progress)
            self._memory.keep(list(todo), rows.astype(np.float32, copy=False))
        return np.stack([known[h] for h in hashes]) if hashes else np.zeros((0, self.text_dim), np.float32)
