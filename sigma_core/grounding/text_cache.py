"""An encoder that remembers: texts it has read before come from files, whoever asked for them.

A row of an encoder depends on its text alone, so this changes what a step costs and never what it makes. Files of one encoder
lie in a folder named by its digest; they may be deleted at any time. Our choice.
"""

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sigma_core.grounding.embed import TextEncoder, text_hash
from sigma_core.tracking import Progress, no_progress

_SUFFIX = ".safetensors"


class RememberingEncoder:
    """`encoder` with a memory in `folder`.

    Attributes:
        num_encoded: distinct texts that really went through the encoder.
        num_recalled: distinct texts that came from the memory.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self._encoder, self._digest = encoder, encoder.digest()
        self._folder = folder / self._digest
        self._known: dict[str, np.ndarray] | None = None
        self.num_encoded = self.num_recalled = 0

    @property
    def text_dim(self) -> int:
        """Width of a row."""
        return self._encoder.text_dim

    def digest(self) -> str:
        """The encoder's own."""
        return self._digest

    def encode(self, texts: Sequence[str], progress: Progress = no_progress) -> np.ndarray:
        """float32 [len(texts), text_dim], bit by bit what the encoder gives."""
        known = self._memory()
        hashes = [text_hash(text) for text in texts]
        todo = {h: text for h, text in zip(hashes, texts, strict=True) if h not in known}
        self.num_recalled += len(set(hashes)) - len(todo)
        self.num_encoded += len(todo)
        if todo:
            rows = self._encoder.encode(list(todo.values()), progress)
            self._keep(list(todo), rows)
            known.update(zip(todo, rows, strict=True))
        return np.stack([known[h] for h in hashes]) if hashes else np.zeros((0, self.text_dim), np.float32)

    def _memory(self) -> dict[str, np.ndarray]:
        if self._known is None:
            from safetensors import SafetensorError
            from safetensors.numpy import load_file

            self._known = {}
            for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
                try:
                    stored = load_file(path)
                except (SafetensorError, OSError):  # a broken file costs its texts once more
                    path.unlink(missing_ok=True)
                    continue
                names = stored["hashes"].tobytes().hex()
                self._known.update(
                    {names[32 * i : 32 * i + 32]: row for i, row in enumerate(stored["vectors"])}
                )
        return self._known

    def _keep(self, hashes: list[str], rows: np.ndarray) -> None:
        from safetensors.numpy import save_file

        self._folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        tmp = self._folder / f".{name}.tmp"
        packed = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(-1, 16)
        save_file({"hashes": packed, "vectors": np.ascontiguousarray(rows, dtype=np.float32)}, tmp)
        tmp.replace(self._folder / f"{name}{_SUFFIX}")
