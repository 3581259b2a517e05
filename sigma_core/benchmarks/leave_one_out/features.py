"""Fixed vectors of items that models start from: texts, category labels, and who stands near whom in training sequences.

Texts and labels belong to the items and are the same under both protocols; `together` is fitted on training sequences
only. Every text row of the benchmark reads the titles of `items.jsonl` through the packaged MiniLM. Source: paper, grounding
(views); positive PMI with a singular value decomposition is our choice of collaborative teacher here, where order is known.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sigma_core.artifacts import digest_json
from sigma_core.benchmarks.leave_one_out.data import IntArray, Sequences

FloatArray = npt.NDArray[np.float32]
PMI_SMOOTHING = 0.75  # of context counts, as in word2vec's negatives


def text_vectors(data: Sequences, cache: Path | None = None) -> FloatArray:
    """Unit MiniLM vectors of the titles [N, 384]; kept in the folder `cache` under a digest of the titles."""
    from safetensors.numpy import load_file, save_file

    path = None if cache is None else cache / f"text-{digest_json(data.titles)}.safetensors"
    if path is not None and path.exists():
        return np.asarray(load_file(path)["vectors"], np.float32)
    from sigma_core.config import GroundingConfig
    from sigma_core.grounding.train import untrained_encoder

    vectors = untrained_encoder(GroundingConfig()).encode(data.titles)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({"vectors": vectors}, part)
        part.replace(path)
    return vectors


def category_matrix(data: Sequences) -> FloatArray:
    """[N, labels]: 1 / sqrt(labels of the item) where the item has the label."""
    labels = {label: i for i, label in enumerate(sorted({x for item in data.categories for x in item}))}
    out = np.zeros((data.num_items, max(1, len(labels))), np.float32)
    for row, item in enumerate(data.categories):
        for label in item:
            out[row, labels[label]] = len(item) ** -0.5
    return out


def principal(vectors: npt.NDArray[np.float32], width: int) -> FloatArray:
    """The first `width` principal components [N, width] (zero columns beyond the rank), scaled to a mean square norm of 1."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    out = np.zeros((len(vectors), width))
    found = centred @ axes[:, ::-1][:, :width]
    out[:, : found.shape[1]] = found
    return np.asarray(out / max(np.sqrt(np.square(out).sum(axis=1).mean()), 1e-12), np.float32)


def together_vectors(sequences: Sequence[IntArray], num_items: int, width: int, seed: int) -> FloatArray:
    """Unit vectors [N, width] in which items of the same sequences are near; zeros for items that no pair has.

    Pairs weigh 1 / sqrt(distance), counted both ways; singular vectors of their positive PMI, scaled by the root of the
    singular values.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    left, right, weight = [], [], []
    for sequence in sequences:
        for distance in range(1, len(sequence)):
            left.append(sequence[:-distance])
            right.append(sequence[distance:])
            weight.append(np.full(len(sequence) - distance, distance**-0.5))
    out = np.zeros((num_items, width), np.float32)
    if not left:
        return out
    pairs = csr_matrix(
        (np.concatenate(weight), (np.concatenate(left), np.concatenate(right))), shape=(num_items, num_items)
    )
    pairs = (pairs + pairs.T).tocoo()
    total = np.asarray(pairs.sum(axis=0)).ravel()
    context = total**PMI_SMOOTHING
    pmi = np.log(pairs.data * context.sum() / (total[pairs.row] * context[pairs.col]))
    kept = pmi > 0
    matrix = csr_matrix((pmi[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)
    rank = min(width, num_items - 1)
    vectors, values, _ = svds(matrix, k=rank, rng=np.random.default_rng(seed))
    out[:, :rank] = (vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1]
    return np.asarray(unit(out), np.float32)


def unit(vectors: FloatArray) -> FloatArray:
    """Rows scaled to norm 1; zero rows stay zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
