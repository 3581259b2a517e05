"""Rows that cost something and depend on their key alone, kept in files: vectors of texts, codes of vectors.

A folder of small files, each written whole; all of them may be deleted at any time, and then the rows cost again. It knows
neither encoders nor codebooks. Our choice.
"""

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from sigma_core.artifacts import digest_bytes, sync

SUFFIX: Final = ".safetensors"


class RowMemory:
    """Rows by key (32 hex digits) in one folder, read when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, np.ndarray] | None = None

    def known(self) -> dict[str, np.ndarray]:
        """Every row that is kept; a broken file is removed and costs its rows once more."""
        if self._rows is None:
            from safetensors import SafetensorError
            from safetensors.numpy import load_file

            self._rows = {}
            for path in sorted(self._folder.glob(f"[!.]*{SUFFIX}")):
                try:
                    stored = load_file(path)
                    names, rows = stored["keys"].tobytes().hex(), list(stored["rows"])
                    if len(names) != 32 * len(rows):
                        raise ValueError("another number of keys than of rows")
                except (SafetensorError, OSError, KeyError, ValueError, TypeError):
                    _give_up(path)
                    continue
                self._rows.update({names[32 * i : 32 * i + 32]: row for i, row in enumerate(rows)})
        return self._rows

    def keep(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Add rows [N, ...] under N keys, now and for later processes."""
        from safetensors.numpy import save_file

        self._folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        tmp = self._folder / f".{name}.tmp"
        packed = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, 16)
        try:
            save_file({"keys": packed, "rows": np.ascontiguousarray(rows)}, tmp)
            sync(tmp)  # rows of zeros after a power cut would be believed for ever
            tmp.replace(self._folder / f"{name}{SUFFIX}")
        finally:
            tmp.unlink(missing_ok=True)
        self.known().update(zip(keys, rows, strict=True))


def _give_up(path: Path) -> None:
    """Remove a broken file; one that cannot be removed (a folder, no right) costs its rows each time."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remembered(
    make: Callable[[np.ndarray], np.ndarray], memory: RowMemory
) -> Callable[[np.ndarray], np.ndarray]:
    """`make` ([N, D] -> [N, L], rows independent of each other) that asks only for rows it has never made."""

    def recall(inputs: np.ndarray) -> np.ndarray:
        keys = [digest_bytes(row.tobytes()) for row in np.ascontiguousarray(inputs)]
        known = memory.known()
        new = [number for number, key in enumerate(keys) if key not in known]
        if new or not keys:
            made = make(inputs[new])
            if not keys:
                return made
            memory.keep([keys[number] for number in new], made)
        return np.stack([memory.known()[key] for key in keys])

    return recall
