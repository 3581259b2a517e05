"""Step 2: all items under each prefix of each request, by one matrix product per prefix.

Items lie sorted by prefix, so a prefix is a slice of the index; queries are grouped by prefix and meet the slice once. It
knows no probabilities: that is step 3. Source: paper, three-step item generation, step 2 (restricted search).

Shape legend: N items, Q prefixes of the index, X (request, beam) pairs, G largest group, E item width.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PrefixRanges(NamedTuple):
    """Where each prefix lies in the sorted item table."""

    rows_QP: Tensor  # distinct prefixes, sorted
    start_Q: Tensor
    length_Q: Tensor

    @classmethod
    def of_sorted(cls, prefixes_NP: Tensor) -> "PrefixRanges":
        """Ranges of a table whose rows are sorted by prefix."""
        rows, counts = torch.unique_consecutive(prefixes_NP, dim=0, return_counts=True)
        return cls(rows, counts.cumsum(0) - counts, counts)

    def find(self, prefixes_XP: Tensor) -> Tensor:
        """Number of each prefix (X,); -1 where the table has none."""
        start, end = prefix_bounds(self.rows_QP, prefixes_XP)
        return torch.where(end > start, start, -1)


def prefix_bounds(rows_QL: Tensor, codes_XL: Tensor) -> tuple[Tensor, Tensor]:
    """First row, and the row after the last, of the sorted `rows_QL` that equal each of `codes_XL` (..., L); equal: none.

    Codes are not negative, and so few and small that they fit one int64 together (L levels of K codes: K ** L < 2 ** 63).
    """
    base = 1 + max(int(part.max()) if part.numel() else 0 for part in (rows_QL, codes_XL))
    power = torch.tensor([base**n for n in range(rows_QL.shape[1])][::-1], dtype=torch.long)
    power = power.to(rows_QL.device)
    rows_Q = (rows_QL * power).sum(dim=-1)
    keys = (codes_XL * power).sum(dim=-1).contiguous()
    return torch.searchsorted(rows_Q, keys), torch.searchsorted(rows_Q, keys, right=True)


class GroupHits(NamedTuple):
    """Cosines of every item under each pair's prefix; `row_XG` are item rows, padding is invalid."""

    row_XG: Tensor
    cosine_XG: Tensor
    valid_XG: Tensor


def search_groups(query_XE: Tensor, group_X: Tensor, items_NE: Tensor, ranges: PrefixRanges) -> GroupHits:
    """Cosine of each query with all items of its prefix group; a group number of -1 gives no valid item."""
    device = query_XE.device
    known = group_X.clamp_min(0)
    length = torch.where(group_X >= 0, ranges.length_Q[known], 0)
    width = int(length.max()) if len(length) else 0
    offset = torch.arange(width, device=device)
    valid = offset[None] < length[:, None]
    row = (ranges.start_Q[known][:, None] + offset).clamp_max(len(items_NE) - 1)
    cosine = query_XE.new_zeros(len(query_XE), width)
    for group in torch.unique(group_X[group_X >= 0]).tolist():
        mine = (group_X == group).nonzero().squeeze(1)
        start, size = int(ranges.start_Q[group]), int(ranges.length_Q[group])
        cosine[mine, :size] = query_XE[mine] @ items_NE[start : start + size].T
    return GroupHits(row, cosine, valid)
