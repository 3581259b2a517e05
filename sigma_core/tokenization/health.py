"""Figures that say whether codebooks are fit for use: usage, balance, collisions, error, purity.

Pure functions of codes and vectors. Collisions are no fault here (the unique item vector tells items apart), but groups that
are too large or codes that nobody has are. Our choice.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sigma_core.config import TokenizationConfig


def codebook_health(
    codes: np.ndarray,
    config: TokenizationConfig,
    vectors: np.ndarray,
    reconstructed: np.ndarray,
    categories: Sequence[str | None] | None,
) -> dict[str, Any]:
    """Health of `codes` (int [N, L]) for `vectors` (float [N, D]); JSON values only.

    usage: share of codes in use, per level. entropy: bits per level (log2 K is the best). dead_codes: unused, per level.
    collision_rate: share of items whose full ID another item has too; distinct_collision_rate: the same among distinct
    vectors. largest_group_ratio: largest prefix group over the mean of the used ones. reconstruction_mse: mean squared
    distance per vector, and explained: its complement as a share of the variance. prefix_purity: share of items whose
    category is the commonest one of their prefix group.
    """
    size = config.codebook_size
    counts = [np.bincount(codes[:, level], minlength=size) for level in range(codes.shape[1])]
    shares = [count[count > 0] / count.sum() for count in counts]
    error = float(np.square(vectors - reconstructed).sum(axis=1).mean())
    spread = float(np.square(vectors - vectors.mean(axis=0)).sum(axis=1).mean())
    _, group, members = np.unique(
        codes[:, : config.prefix_length], axis=0, return_inverse=True, return_counts=True
    )
    return {
        "usage": [round(float((count > 0).mean()), 4) for count in counts],
        "entropy_bits": [round(float(-(p * np.log2(p)).sum()), 3) for p in shares],
        "dead_codes": [int((count == 0).sum()) for count in counts],
        "collision_rate": round(_collision_rate(codes), 4),
        "distinct_collision_rate": round(_collision_rate(_codes_of_distinct(codes, vectors)), 4),
        "prefix_groups": len(members),
        "largest_group": int(members.max()),
        "largest_group_ratio": round(float(members.max() / members.mean()), 3),
        "reconstruction_mse": round(error, 5),
        "explained": round(1.0 - error / max(spread, 1e-12), 4),
        "prefix_purity": None if categories is None else round(_purity(group.reshape(-1), categories), 4),
    }


def _collision_rate(codes: np.ndarray) -> float:
    _, counts = np.unique(codes, axis=0, return_counts=True)
    return float(counts[counts > 1].sum() / max(len(codes), 1))


def _codes_of_distinct(codes: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    _, first = np.unique(vectors, axis=0, return_index=True)
    distinct: np.ndarray = codes[first]
    return distinct


def _purity(group: np.ndarray, categories: Sequence[str | None]) -> float:
    names = np.array(["" if name is None else name for name in categories])
    _, label = np.unique(names, return_inverse=True)
    table = np.zeros((int(group.max()) + 1, int(label.max()) + 1), dtype=np.int64)
    np.add.at(table, (group, label.reshape(-1)), 1)
    return float(table.max(axis=1).sum() / len(group))
