"""Step 2: all items under each prefix of each request, by one matrix product per prefix.

Items lie sorted by prefix, so a prefix is a slice of the index; queries are grouped by prefix and meet the slice once. It
knows no probabilities: that is step 3. Source: paper, three-step item generation, step 2 (restricted search).

Shape legend: N items, Q prefixes of the index, X (request, beam) pairs, G largest group, E item width.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

SMALL_SEARCH: Final = 1500  # up to so many rows in all, gathering them beats a product a prefix (`sigma benchmark subset-search`)


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
    if len(query_XE) * width <= SMALL_SEARCH:
        cosine = (items_NE[row] @ query_XE[..., None]).squeeze(-1).masked_fill(~valid, 0.0)
    else:
        cosine = by_slices(query_XE, group_X, items_NE, ranges, width)
    return GroupHits(row, cosine, valid)


def by_slices(
    query_XE: Tensor, group_X: Tensor, items_NE: Tensor, ranges: PrefixRanges, width: int
) -> Tensor:
    """The cosines (X, G), a product for each prefix that is asked for: its slice of the table is read once."""
    order = torch.argsort(group_X, stable=True)
    groups, counts = torch.unique_consecutive(group_X[order], return_counts=True)
    query, sorted_XG = query_XE[order], query_XE.new_zeros(len(query_XE), width)
    starts, lengths = (
        ranges.start_Q[groups.clamp_min(0)].tolist(),
        ranges.length_Q[groups.clamp_min(0)].tolist(),
    )
    first = 0
    for group, count, start, size in zip(groups.tolist(), counts.tolist(), starts, lengths, strict=True):
        if group >= 0:
            torch.mm(
                query[first : first + count],
                items_NE[start : start + size].T,
                out=sorted_XG[first : first + count, :size],
            )
        first += count
    return torch.empty_like(sorted_XG).index_copy_(0, order, sorted_XG)
