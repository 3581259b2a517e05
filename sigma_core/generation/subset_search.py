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
    """Cosines of every item under each pair's prefix: slot g of pair x is item row `start_X[x] + g`; -inf beyond its group."""

    start_X: Tensor
    cosine_XG: Tensor

    def rows(self, slot_XG: Tensor, num_items: int) -> Tensor:
        """Item rows of these slots of each pair; the last row of the table where a slot lies beyond all of it."""
        return (self.start_X[:, None] + slot_XG).clamp_max(num_items - 1)


def search_groups(query_XE: Tensor, group_X: Tensor, items_NE: Tensor, ranges: PrefixRanges) -> GroupHits:
    """Cosine of each query with all items of its prefix group; a group number of -1 holds no item.

    Pairs may come in any order; those sorted by group are spared a copy of the result.
    """
    known = group_X.clamp_min(0)
    length = torch.where(group_X >= 0, ranges.length_Q[known], 0)
    start = ranges.start_Q[known]
    width = int(length.max()) if len(length) else 0
    if len(query_XE) * width <= SMALL_SEARCH:
        offset = torch.arange(width, device=query_XE.device)
        row = (start[:, None] + offset).clamp_max(len(items_NE) - 1)
        cosine = (items_NE[row] @ query_XE[..., None]).squeeze(-1)
        cosine = cosine.masked_fill(offset >= length[:, None], -torch.inf)
    else:
        cosine = by_slices(query_XE, group_X, items_NE, ranges, width)
    return GroupHits(start, cosine)


def by_slices(
    query_XE: Tensor, group_X: Tensor, items_NE: Tensor, ranges: PrefixRanges, width: int
) -> Tensor:
    """The cosines (X, G), a product for each prefix that is asked for: its slice of the table is read once."""
    is_sorted = bool((group_X[1:] >= group_X[:-1]).all())
    order = None if is_sorted else torch.argsort(group_X, stable=True)
    query, sorted_X = (query_XE, group_X) if order is None else (query_XE[order], group_X[order])
    sorted_XG = query.new_full((len(query), width), -torch.inf)
    groups, counts = torch.unique_consecutive(sorted_X, return_counts=True)
    known = groups.clamp_min(0)
    starts, lengths = ranges.start_Q[known].tolist(), ranges.length_Q[known].tolist()
    first = 0
    for group, count, start, size in zip(groups.tolist(), counts.tolist(), starts, lengths, strict=True):
        if group >= 0:
            torch.mm(
                query[first : first + count],
                items_NE[start : start + size].T,
                out=sorted_XG[first : first + count, :size],
            )
        first += count
    return sorted_XG if order is None else torch.empty_like(sorted_XG).index_copy_(0, order, sorted_XG)
