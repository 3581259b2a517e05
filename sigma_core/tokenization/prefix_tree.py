"""Which semantic-ID prefixes exist, and which items stand under each: the only source of legal prefixes for decoding.

Pure numpy. It knows neither items' names nor the model; rows are positions in the caller's catalog. A prefix that no row
has is in no mask, so it can never be generated. Source: paper section on generation, steps 1 and 2; paper.md, decision 6.
"""

# Shape legend: N rows (items), P prefix length, K codes per level, G distinct prefixes, n_d nodes at depth d.

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class PrefixTree:
    """The trie of the prefixes of N rows, and the rows grouped by prefix.

    Attributes:
        prefixes: int32 [G, P], distinct, in lexicographic order; row g is the prefix of group g.
        group_of_row: int32 [N], the group of each row.
        order: int64 [N], rows sorted by group, inside a group by row.
        offsets: int64 [G + 1]; the rows of group g are `order[offsets[g]:offsets[g + 1]]`.
        children: one int32 [n_d, K] per depth 0..P-1: the node at depth d + 1 that a code leads to, -1 where there is none.
            The nodes of depth P are the groups, in the same order.
        codebook_size: K.
    """

    prefixes: np.ndarray
    group_of_row: np.ndarray
    order: np.ndarray
    offsets: np.ndarray
    children: tuple[np.ndarray, ...]
    codebook_size: int

    @classmethod
    def from_prefixes(cls, prefixes: np.ndarray, codebook_size: int) -> Self:
        """The tree of `prefixes` (int [N, P]).

        Raises:
            ValueError: not two-dimensional, no column, or a code outside 0..codebook_size-1.
        """
        codes_NP = np.asarray(prefixes)
        if codes_NP.ndim != 2 or codes_NP.shape[1] == 0:
            raise ValueError(f"prefixes must have shape [rows, length >= 1], arrived {codes_NP.shape}.")
        if codes_NP.size and (codes_NP.min() < 0 or codes_NP.max() >= codebook_size):
            raise ValueError(
                f"prefix codes run from {codes_NP.min()} to {codes_NP.max()}, a codebook of {codebook_size} entries "
                f"allows 0 to {codebook_size - 1}; use the semantic_id_map of the same codebooks."
            )
        codes_NP = codes_NP.astype(np.int32)
        distinct_GP, group_N = np.unique(codes_NP, axis=0, return_inverse=True)
        group_N = group_N.reshape(-1).astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(group_N, minlength=len(distinct_GP)))])
        return cls(
            prefixes=distinct_GP,
            group_of_row=group_N,
            order=np.argsort(group_N, kind="stable"),
            offsets=offsets.astype(np.int64),
            children=_children(distinct_GP, codebook_size),
            codebook_size=codebook_size,
        )

    @property
    def num_groups(self) -> int:
        """G, the number of distinct prefixes."""
        return len(self.prefixes)

    @property
    def prefix_length(self) -> int:
        """P, the number of codes of a prefix."""
        return int(self.prefixes.shape[1])

    def child_mask(self, depth: int) -> np.ndarray:
        """Bool [n_depth, K]: True where the node at `depth` has a child under that code."""
        mask: np.ndarray = self.children[depth] >= 0
        return mask

    def rows(self, group: int) -> np.ndarray:
        """int64: the rows under the prefix of `group`, ascending."""
        return self.order[self.offsets[group] : self.offsets[group + 1]]

    def sizes(self) -> np.ndarray:
        """int64 [G]: rows under each prefix."""
        return np.diff(self.offsets)

    def groups_of(self, prefixes: np.ndarray) -> np.ndarray:
        """int32 [M]: the group of each prefix of `prefixes` (int [M, P]); -1 where no row has it."""
        codes_MP = np.asarray(prefixes)
        node_M = np.zeros(len(codes_MP), dtype=np.int32)
        for depth, child in enumerate(self.children):
            code_M = codes_MP[:, depth]
            legal_M = (node_M >= 0) & (code_M >= 0) & (code_M < self.codebook_size)
            safe_M = np.where(legal_M, code_M, 0)
            node_M = np.where(legal_M, child[np.where(legal_M, node_M, 0), safe_M], -1)
        return node_M.astype(np.int32)


def _children(distinct_GP: np.ndarray, codebook_size: int) -> tuple[np.ndarray, ...]:
    # Lexicographic order makes the nodes of every depth contiguous runs of groups, so node numbers are run numbers.
    num_groups, length = distinct_GP.shape
    node_G = np.zeros(num_groups, dtype=np.int32)
    num_nodes = 1
    out = []
    for depth in range(length):
        key_G = node_G.astype(np.int64) * codebook_size + distinct_GP[:, depth]
        keys, next_G = np.unique(key_G, return_inverse=True)
        child = np.full((num_nodes, codebook_size), -1, dtype=np.int32)
        child[keys // codebook_size, keys % codebook_size] = np.arange(len(keys), dtype=np.int32)
        out.append(child)
        node_G, num_nodes = next_G.reshape(-1).astype(np.int32), len(keys)
    return tuple(out)
