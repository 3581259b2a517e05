"""Grounded text vectors of a catalog, content addressed: a text that this encoder has read before is copied, not encoded.

Holds the `ItemEmbeddings` artifact and the one function that makes it. It trains nothing. The copy is exact because a row
of `GroundedEncoder.encode` depends on its text alone. Source: paper, section on grounding (v_text); caching is our choice.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TABLE, digest_arrays, digest_json, read_json, write_json
from sigma_core.grounding.lexical import LexicalHash
from sigma_core.tracking import Progress, no_progress

VECTORS = "vectors.safetensors"
_TEXT_HASH = "text_hash"
_AT, _VALUE, _ROW = "lexical_at", "lexical_value", "row"


class TextEncoder(Protocol):
    """What `embed_items` needs of an encoder."""

    @property
    def text_dim(self) -> int:
        """Width of a row."""

    @property
    def lexical(self) -> LexicalHash:
        """Words of a text, hashed."""

    def encode(self, texts: Sequence[str], progress: Progress = no_progress) -> np.ndarray:
        """float32 [len(texts), text_dim] of unit rows; a row depends on its text alone."""

    def digest(self) -> str:
        """Digest of everything that decides a row."""


def text_hash(text: str) -> str:
    """Hex blake2b-128 of the text, the address of its vector."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class ItemEmbeddings:
    """v_text of a set of items.

    Attributes:
        item_ids: N ids, strictly ascending.
        text_hashes: N hashes of the texts that were encoded.
        vectors: float32 [N, text_dim], unit rows.
        lexical: float32 [N, W], rows of `LexicalHash.encode`; W may be 0.
        encoder_digest: digest of the encoder that made them.
    """

    def __init__(
        self,
        item_ids: Sequence[str],
        text_hashes: Sequence[str],
        vectors: np.ndarray,
        encoder_digest: str,
        lexical: np.ndarray | None = None,
    ) -> None:
        self.item_ids = list(item_ids)
        self.text_hashes = list(text_hashes)
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.encoder_digest = encoder_digest
        empty = np.zeros((len(self.item_ids), 0), dtype=np.float32)
        self.lexical = empty if lexical is None else np.ascontiguousarray(lexical, dtype=np.float32)
        if not len(self.item_ids) == len(self.text_hashes) == len(self.vectors):
            raise ValueError(
                f"ItemEmbeddings: {len(self.item_ids)} ids, {len(self.text_hashes)} hashes and {len(self.vectors)} "
                "vectors arrived; the three must be aligned."
            )
        if any(a >= b for a, b in zip(self.item_ids, self.item_ids[1:], strict=False)):
            raise ValueError(
                "ItemEmbeddings: item_ids must be distinct and ascending; use embed_items, which sorts."
            )
        self._digest: str | None = None

    def match(self) -> np.ndarray:
        """float32 [N, text_dim + W], aligned with `GroundedEncoder.match_vectors`."""
        return np.concatenate((self.vectors, self.lexical), axis=1)

    def rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """int64 positions of `item_ids`.

        Raises:
            ValueError: an id that is not here.
        """
        return positions(self.item_ids, item_ids, "ItemEmbeddings")

    def save(self, directory: Path) -> None:
        """Write ids, hashes and hashed words (sparse) as Parquet, vectors as safetensors, the rest as JSON."""
        from safetensors.numpy import save_file

        table = pl.DataFrame({c.ITEM_ID: self.item_ids, _TEXT_HASH: self.text_hashes}).cast(pl.String)
        row, at = np.nonzero(self.lexical != 0)
        said = pl.DataFrame({_ROW: row, _AT: at.astype(np.uint16), _VALUE: self.lexical[row, at]})
        table.with_row_index(_ROW).with_columns(pl.col(_ROW).cast(pl.Int64)).join(
            said.group_by(_ROW, maintain_order=True).agg(_AT, _VALUE),
            on=_ROW,
            how="left",
            maintain_order="left",
        ).drop(_ROW).with_columns(pl.col(_AT, _VALUE).fill_null([])).write_parquet(directory / TABLE)
        save_file({"vectors": self.vectors}, directory / VECTORS)
        meta = {"encoder_digest": self.encoder_digest, "lexical_dim": int(self.lexical.shape[1])}
        write_json(directory / "meta.json", meta)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        from safetensors.numpy import load_file

        table = pl.read_parquet(directory / TABLE)
        meta = read_json(directory / "meta.json")
        lexical = np.zeros((len(table), int(meta["lexical_dim"])), dtype=np.float32)
        sizes = table[_AT].list.len().to_numpy()
        rows = np.repeat(np.arange(len(table)), sizes)
        if len(rows):
            at = table[_AT].explode(empty_as_null=False).to_numpy()
            lexical[rows, at] = table[_VALUE].explode(empty_as_null=False).to_numpy()
        return cls(
            table[c.ITEM_ID].to_list(),
            table[_TEXT_HASH].to_list(),
            load_file(directory / VECTORS)["vectors"],
            str(meta["encoder_digest"]),
            lexical,
        )

    def digest(self) -> str:
        """Digest of ids, hashes, vectors and encoder, computed once: embeddings are never changed."""
        if self._digest is None:
            arrays = digest_arrays({"vectors": self.vectors, "lexical": self.lexical})
            self._digest = digest_json([self.item_ids, self.text_hashes, arrays, self.encoder_digest])
        return self._digest

    def summary(self) -> dict[str, Any]:
        """Number of items, of distinct texts, and the width."""
        return {
            "items": len(self.item_ids),
            "distinct_texts": len(set(self.text_hashes)),
            "text_dim": int(self.vectors.shape[1]),
        }


def positions(known: Sequence[str], wanted: Sequence[str], owner: str) -> np.ndarray:
    """int64 positions of `wanted` in the ascending list `known`.

    Raises:
        ValueError: an id that is not in `known`; the message counts them and shows the first five.
    """
    found = pl.DataFrame({"id": wanted}, schema={"id": pl.String}).join(
        pl.DataFrame({"id": known}, schema={"id": pl.String}).with_row_index("row"),
        on="id",
        how="left",
        maintain_order="left",
    )
    missing = found.filter(pl.col("row").is_null())["id"].to_list()
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(wanted)} items are not in {owner} (first: {missing[:5]}). "
            "Materialize it for the same catalog first."
        )
    return found["row"].to_numpy().astype(np.int64)


def embed_items(
    ids: Sequence[str],
    texts: Sequence[str],
    encoder: TextEncoder,
    cache: Sequence[ItemEmbeddings] = (),
    progress: Progress = no_progress,
) -> tuple[ItemEmbeddings, int]:
    """v_text of `ids` (made from the aligned `texts`), and how many distinct texts had to be encoded.

    Vectors of texts found in a cache made by the same encoder are copied bit by bit; caches of other encoders are ignored.
    Rows come out in ascending id order.

    Raises:
        ValueError: ids and texts differ in number, or an id comes twice.
    """
    if len(ids) != len(texts) or len(set(ids)) != len(ids):
        raise ValueError(
            f"{len(ids)} ids ({len(set(ids))} distinct) and {len(texts)} texts arrived; needed one text per distinct id."
        )
    by_id = dict(zip(ids, texts, strict=True))
    item_ids = sorted(by_id)
    hashes = [text_hash(by_id[i]) for i in item_ids]
    digest = encoder.digest()
    found: dict[str, int] = {}  # of a text: its row in what is known, all caches one after the other
    parts: list[tuple[np.ndarray, np.ndarray]] = []  # vectors and hashed words
    for known in cache:
        if known.encoder_digest == digest:
            start = sum(len(rows) for rows, _ in parts)
            found.update(zip(known.text_hashes, range(start, start + len(known.text_hashes)), strict=True))
            parts.append((known.vectors, known.lexical))
    todo = {h: by_id[i] for i, h in zip(item_ids, hashes, strict=True) if h not in found}
    if todo or not parts:
        new = list(todo.values())
        start = sum(len(rows) for rows, _ in parts)
        found.update(zip(todo, range(start, start + len(todo)), strict=True))
        encoded = encoder.encode(new, progress) if new else np.zeros((0, encoder.text_dim), np.float32)
        parts.append((encoded, encoder.lexical.encode(new)))
    row_N = np.array([found[h] for h in hashes], dtype=np.int64)
    vectors, lexical = (_gather([part[side] for part in parts], row_N) for side in (0, 1))
    return ItemEmbeddings(item_ids, hashes, vectors, digest, lexical), len(todo)


def _gather(parts: Sequence[np.ndarray], row_N: np.ndarray) -> np.ndarray:
    """Rows of the parts as if they lay one after the other; copied once, but for the few outside the part with most of them."""
    ends = np.cumsum([len(part) for part in parts])
    part_N = np.searchsorted(ends, row_N, side="right")
    start = np.concatenate(([0], ends))
    most = int(np.bincount(part_N, minlength=len(parts)).argmax())
    if not len(parts[most]):
        return np.zeros((len(row_N), parts[most].shape[1]), dtype=np.float32)
    out = parts[most].take(row_N - start[most], axis=0, mode="clip")
    for number, part in enumerate(parts):
        if number != most:
            here = np.flatnonzero(part_N == number)
            out[here] = part[row_N[here] - start[number]]
    return out
