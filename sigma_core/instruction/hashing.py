"""Choices by hash: the same rows are chosen on every machine, in any order, with any number of threads.

Holds one hash and nothing that uses it. Our choice: polars' and Python's own hashes may change with a version.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
import polars as pl

_SEPARATOR: Final = "\x1f"


def stable_hash(frame: pl.DataFrame, columns: Sequence[str], salt: str) -> pl.Series:
    """blake2b of the named columns' text and the salt, UInt64, one value a row."""
    keys = frame.select(
        pl.concat_str([pl.col(name).cast(pl.String) for name in columns], separator=_SEPARATOR)
    )
    start = blake2b(salt.encode(), digest_size=8)
    digests = []
    for key in keys.to_series().to_list():
        state = start.copy()
        state.update(key.encode())
        digests.append(state.digest())
    return pl.Series("hash", np.frombuffer(b"".join(digests), dtype="<u8"), pl.UInt64)


def keep_by_hash(
    frame: pl.DataFrame, most: int, *, of: Sequence[str], within: Sequence[str], salt: str
) -> pl.DataFrame:
    """At most `most` rows of each group `within`, those with the smallest hash of the columns `of`; order is kept.

    The rows of a group must differ in `of`, or the choice between equal ones falls to their order.
    """
    crowded = frame.filter(pl.len().over(within) > most)
    if crowded.is_empty():
        return frame
    marked = frame.with_columns(stable_hash(frame, of, salt).alias(_HASH))
    return marked.filter(pl.col(_HASH).rank("ordinal").over(within) <= most).drop(_HASH)


_HASH: Final = "hash"
