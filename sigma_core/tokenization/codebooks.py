"""Residual codebooks: grounded vectors into the codes of semantic IDs.

Holds fitting, encoding and the health figures. What an item's ID is on a given day (refit codes kept, later items coded) is
decided in `semantic_ids.py`. Refitted monthly, pinned in between. Source: paper section on hybrid item tokenization;
balance, numbering and the collaborative share of the first level are our choice.
"""

# Shape legend: N items, U distinct vectors, D text width, L levels, K codes per level, B beam.

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TABLE, digest_arrays, digest_json, read_json, write_json
from sigma_core.config import TokenizationConfig
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.tokenization import balanced_kmeans as bk
from sigma_core.tokenization.health import codebook_health

_TENSORS = "codebooks.safetensors"
_ENCODE_CHUNK = 64


class Codebooks:
    """Pinned codebooks and the codes of the items they were fitted on.

    Attributes:
        codebooks: float32 [L, K, D]; rows of unused codes are zero and never chosen.
        item_ids: N refit items, ascending.
        codes: int32 [N, L], their stored codes (level 0 is balanced, so it may differ from the nearest centroid).
        prefix_length: how many leading codes become tokens.
        beam: partial codes kept while encoding.
        encoder_digest: the encoder whose space this is.
        health: figures of `codebook_health`.
    """

    def __init__(
        self,
        codebooks: np.ndarray,
        item_ids: Sequence[str],
        codes: np.ndarray,
        *,
        prefix_length: int,
        beam: int,
        encoder_digest: str,
        health: dict[str, Any] | None = None,
    ) -> None:
        self.codebooks = np.ascontiguousarray(codebooks, dtype=np.float32)
        self.item_ids = list(item_ids)
        self.codes = np.ascontiguousarray(codes, dtype=np.int32)
        self.prefix_length = prefix_length
        self.beam = beam
        self.encoder_digest = encoder_digest
        self.health = dict(health or {})
        if self.codes.shape != (len(self.item_ids), self.codebooks.shape[0]):
            raise ValueError(
                f"Codebooks: codes of shape {self.codes.shape} arrived for {len(self.item_ids)} items and "
                f"{self.codebooks.shape[0]} levels."
            )

    @property
    def num_levels(self) -> int:
        """L, the codes of a full semantic ID."""
        return int(self.codebooks.shape[0])

    @property
    def codebook_size(self) -> int:
        """K, the entries of a level."""
        return int(self.codebooks.shape[1])

    def used(self, level: int) -> np.ndarray:
        """Bool [K]: codes that some refit item has at `level`."""
        mask: np.ndarray = np.bincount(self.codes[:, level], minlength=self.codebook_size) > 0
        return mask

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """int32 [M, L] codes of `vectors` (float [M, D]): prefix greedy (nearest centroid), the rest by beam search.

        Rows are independent of each other.

        Raises:
            ValueError: the width is not that of the codebooks.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.codebooks.shape[2]:
            raise ValueError(
                f"vectors of shape {vectors.shape} arrived, the codebooks need [rows, {self.codebooks.shape[2]}]; "
                "encode the texts with the encoder of the same refit."
            )
        return _encode(self.codebooks, [self.used(level) for level in range(self.num_levels)], vectors, self)

    def reconstruct(self, codes: np.ndarray) -> np.ndarray:
        """float32 [M, D]: the sum of the entries that `codes` (int [M, L]) name."""
        return _reconstruct(self.codebooks, codes)

    def save(self, directory: Path) -> None:
        """Write tensors as safetensors, refit codes as Parquet, the rest as JSON."""
        from safetensors.numpy import save_file

        save_file({"codebooks": self.codebooks}, directory / _TENSORS)
        pl.DataFrame(
            {c.ITEM_ID: self.item_ids, c.CODES: self.codes.tolist()},
            schema={c.ITEM_ID: pl.String, c.CODES: pl.List(pl.Int32)},
        ).write_parquet(directory / TABLE)
        write_json(directory / "meta.json", {**self._binding(), "health": self.health})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        from safetensors.numpy import load_file

        table = pl.read_parquet(directory / TABLE)
        tensor = load_file(directory / _TENSORS)["codebooks"]
        codes = np.array(table[c.CODES].to_list(), dtype=np.int32).reshape(table.height, tensor.shape[0])
        return cls(tensor, table[c.ITEM_ID].to_list(), codes, **read_json(directory / "meta.json"))

    def digest(self) -> str:
        """Digest of tensors, refit codes and settings; the health figures follow from them."""
        arrays = digest_arrays({"codebooks": self.codebooks, "codes": self.codes})
        return digest_json([self.item_ids, arrays, self._binding()])

    def summary(self) -> dict[str, Any]:
        """Sizes and health."""
        return {
            "items": len(self.item_ids),
            "levels": self.num_levels,
            "codebook_size": self.codebook_size,
            "prefix_length": self.prefix_length,
            **self.health,
        }

    def _binding(self) -> dict[str, Any]:
        return {"prefix_length": self.prefix_length, "beam": self.beam, "encoder_digest": self.encoder_digest}


def fit_codebooks(
    embeddings: ItemEmbeddings,
    config: TokenizationConfig,
    seed: int,
    threads: int,
    *,
    id_embeddings: ItemIdEmbeddings | None = None,
    categories: Sequence[str | None] | None = None,
) -> Codebooks:
    """Codebooks fitted on `embeddings`; equal text vectors always share their codes.

    Level 0 is clustered with a capacity (`max_group_ratio`); where `id_embeddings` come and `collaborative_weight` is above
    0 its clusters also follow v_ID, averaged over the items of one text. Its centroids are means of text vectors in any case,
    so that a later item is coded from its text alone. Deeper levels are k-means on what the levels above left over.
    `categories`, aligned with the embeddings' ids, only feeds the purity figure.

    Raises:
        ValueError: no item, or a prefix longer than the ID.
    """
    from threadpoolctl import threadpool_limits

    if not embeddings.item_ids or config.prefix_length > config.num_levels:
        raise ValueError(
            f"fit_codebooks: {len(embeddings.item_ids)} items, prefix_length {config.prefix_length} of {config.num_levels} "
            "levels arrived; needed at least one item and a prefix no longer than the ID."
        )
    import faiss

    previous = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        with threadpool_limits(1, user_api="blas"):  # the same sums on any machine setting
            codebooks, codes = _fit(embeddings, config, seed, id_embeddings)
    finally:
        faiss.omp_set_num_threads(previous)
    health = codebook_health(codes, config, embeddings.vectors, _reconstruct(codebooks, codes), categories)
    return Codebooks(
        codebooks,
        embeddings.item_ids,
        codes,
        prefix_length=config.prefix_length,
        beam=config.beam,
        encoder_digest=embeddings.encoder_digest,
        health=health,
    )


def _fit(
    embeddings: ItemEmbeddings, config: TokenizationConfig, seed: int, id_embeddings: ItemIdEmbeddings | None
) -> tuple[np.ndarray, np.ndarray]:
    units_UD, first_U, unit_N = _distinct_rows(embeddings.vectors)
    weights_U = np.bincount(unit_N).astype(np.float64)
    space = units_UD
    if id_embeddings is not None and config.collaborative_weight > 0:
        extra = _unit_id_vectors(embeddings.item_ids, unit_N, len(first_U), id_embeddings)
        space = np.concatenate([units_UD, config.collaborative_weight * extra], axis=1).astype(np.float32)
    num_codes = config.codebook_size
    codebooks = np.zeros((config.num_levels, num_codes, units_UD.shape[1]), dtype=np.float32)
    codes_UL = np.zeros((len(units_UD), config.num_levels), dtype=np.int32)
    residual = units_UD.copy()
    for level in range(config.num_levels):
        if level == 0:
            labels = bk.balanced_kmeans(
                space, weights_U, num_codes, max_ratio=config.max_group_ratio, iterations=20, seed=seed
            ).labels
        else:
            centers = bk.kmeans(residual, weights_U, num_codes, iterations=20, seed=seed + level)
            labels = bk.nearest(residual, centers)
        labels = bk.canonical_order(labels, num_codes)[labels]
        codebooks[level] = bk.means(residual, weights_U, labels, num_codes)
        codes_UL[:, level] = labels
        residual = residual - codebooks[level][labels]
    return codebooks, codes_UL[unit_N]


def _distinct_rows(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Distinct vectors in the order of their first item, so that numbering by first unit is numbering by smallest item id.
    _, first, inverse = np.unique(vectors_ND, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    order = np.argsort(first, kind="stable")
    rank[order] = np.arange(len(first))
    return vectors_ND[first[order]], first[order], rank[inverse.reshape(-1)]


def _unit_id_vectors(
    item_ids: Sequence[str], unit_N: np.ndarray, num_units: int, id_embeddings: ItemIdEmbeddings
) -> np.ndarray:
    known = {item: row for row, item in enumerate(id_embeddings.item_ids)}
    row_N = np.array([known.get(item, -1) for item in item_ids])
    factors = id_embeddings.factors
    factors = factors / np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-12)
    out = np.zeros((num_units, factors.shape[1]))
    has = row_N >= 0
    np.add.at(out, unit_N[has], factors[row_N[has]])
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    result: np.ndarray = out / np.maximum(norms, 1e-12)  # a text none of whose items has v_ID stays at zero
    return result


def _reconstruct(codebooks_LKD: np.ndarray, codes_ML: np.ndarray) -> np.ndarray:
    out = np.zeros((len(codes_ML), codebooks_LKD.shape[2]), dtype=np.float32)
    for level, codebook_KD in enumerate(codebooks_LKD):
        out += codebook_KD[codes_ML[:, level]]
    return out


def _encode(
    codebooks_LKD: np.ndarray, used_LK: list[np.ndarray], vectors: np.ndarray, owner: Codebooks
) -> np.ndarray:
    # einsum's own loops over chunks of one shape, not BLAS: a product's last bits depend on the batch, and a code must not.
    out = np.zeros((len(vectors), owner.num_levels), dtype=np.int32)
    for start in range(0, len(vectors), _ENCODE_CHUNK):
        chunk = vectors[start : start + _ENCODE_CHUNK]
        rows_MD = np.zeros((_ENCODE_CHUNK, vectors.shape[1]), dtype=np.float32)
        rows_MD[: len(chunk)] = chunk
        out[start : start + _ENCODE_CHUNK] = _encode_chunk(
            codebooks_LKD, used_LK, rows_MD, owner, len(chunk)
        )[: len(chunk)]
    return out


def _encode_chunk(
    codebooks_LKD: np.ndarray, used_LK: list[np.ndarray], rows_MD: np.ndarray, owner: Codebooks, num_rows: int
) -> np.ndarray:
    """Codes of the first `num_rows` rows; the others only give the chunk its shape, and get any."""
    residual_MBD = rows_MD[:, None, :]
    codes_MBL = np.zeros((len(rows_MD), 1, 0), dtype=np.int32)
    row_M1 = np.arange(len(rows_MD))[:, None]
    for level, codebook_KD in enumerate(codebooks_LKD):
        width = 1 if level < owner.prefix_length else owner.beam
        codes_K, entries_KD = np.flatnonzero(used_LK[level]).astype(np.int32), codebook_KD[used_LK[level]]
        norms_K = np.einsum("kd,kd->k", entries_KD, entries_KD)
        norms_MB1 = np.einsum("mbd,mbd->mb", residual_MBD, residual_MBD)[..., None]
        error_MBK = norms_MB1 + norms_K - 2.0 * np.einsum("mbd,kd->mbk", residual_MBD, entries_KD)
        best_MW = np.zeros((len(rows_MD), min(width, error_MBK[0].size)), dtype=np.int64)
        error_NE = error_MBK.reshape(len(rows_MD), -1)[:num_rows]
        best_MW[:num_rows] = (
            error_NE.argmin(axis=1)[:, None]
            if width == 1
            else np.argsort(error_NE, axis=1, kind="stable")[:, :width]
        )
        parent_MW, place_MW = np.divmod(best_MW, len(codes_K))
        codes_MBL = np.concatenate([codes_MBL[row_M1, parent_MW], codes_K[place_MW][..., None]], axis=2)
        residual_MBD = np.ascontiguousarray(residual_MBD[row_M1, parent_MW] - entries_KD[place_MW])
    best: np.ndarray = codes_MBL[:, 0]
    return best
