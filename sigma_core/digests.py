"""Digests of canonical content: bytes, JSON values, arrays, frames. Knows no file and no artifact. Our choice."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl


def digest_bytes(*parts: bytes | memoryview) -> str:
    """Hex blake2b-128 of the parts, each prefixed with its length so that no two splits collide."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.hexdigest()


def digest_json(value: Any) -> str:
    """Digest of a JSON value, independent of key order."""
    return digest_bytes(json.dumps(value, sort_keys=True, default=str, separators=(",", ":")).encode())


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of named arrays: name, dtype, shape and bytes, in name order."""
    parts: list[bytes | memoryview] = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        flat = array.reshape(-1).view(np.uint8).data
        parts += [name.encode(), str(array.dtype).encode(), str(array.shape).encode(), flat]
    return digest_bytes(*parts)


def digest_frame(frame: pl.DataFrame) -> str:
    """Digest of a frame: schema and values, in the frame's own row and column order.

    Hashes uncompressed Parquet without its footer (which names a polars version); IPC bytes depend on memory layout.
    """
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(buffer, compression="uncompressed", statistics=False)
    data = buffer.getvalue()
    footer = int.from_bytes(data[-8:-4], "little")
    return digest_bytes(str(frame.schema).encode(), data[: -8 - footer])
