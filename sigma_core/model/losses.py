"""Losses of the SFT stage, on plain tensors: next prefix token, item within its prefix, item within the catalogue.

Holds no model and no batch layout, so each can be tested against a float64 reference.

Shape legend: X states, M leaves, N items, C prefix groups, G largest group, E item width.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PrefixGroups(NamedTuple):
    """Items by prefix group, padded: row c lists the item rows that share full prefix number c."""

    members_CG: Tensor  # int64 item rows; padding repeats row 0
    valid_CG: Tensor
    group_of_N: Tensor
    slot_of_N: Tensor  # column of the item within its group

    @classmethod
    def build(cls, group_of_N: Tensor) -> "PrefixGroups":
        """Groups from each item's group number (0 <= group < C, every number used or not)."""
        order = torch.argsort(group_of_N, stable=True)
        counts = torch.bincount(group_of_N)
        starts = counts.cumsum(0) - counts
        slot = torch.empty_like(group_of_N)
        slot[order] = torch.arange(len(order)) - starts[group_of_N[order]]
        members = torch.zeros(len(counts), int(counts.max()), dtype=torch.long)
        valid = torch.zeros_like(members, dtype=torch.bool)
        members[group_of_N, slot] = torch.arange(len(group_of_N))
        valid[group_of_N, slot] = True
        return cls(members, valid, group_of_N, slot)


def prefix_nll(log_probs_XK: Tensor, state_T: Tensor, code_T: Tensor, weight_T: Tensor) -> Tensor:
    """L_NTP: weighted mean of -log P(code | state) over T targets. Source: paper, L_NTP."""
    picked = log_probs_XK[state_T, code_T]
    return -(picked * weight_T).sum() / weight_T.sum().clamp_min(1e-9)


def in_prefix_info_nce(
    query_ME: Tensor,
    group_M: Tensor,
    items_NE: Tensor,
    groups: PrefixGroups,
    leaf_T: Tensor,
    item_T: Tensor,
    sharpness_M: Tensor,
) -> Tensor:
    """L_InfoNCE: mean over targets of -log softmax of cos(h, v~) * sharpness over *all* items of the target's prefix group.

    `leaf_T` and `item_T` name each target's leaf and item row; a leaf may have several. The group product is one batched
    matrix product over padded groups, leaves sorted by group. Source: paper, L_ID with hard negatives that share the
    target's prefix.
    """
    order = torch.argsort(group_M, stable=True)
    counts = torch.bincount(group_M, minlength=len(groups.members_CG))
    used = counts.nonzero().squeeze(1)
    starts = counts.cumsum(0) - counts
    slot = torch.empty_like(group_M)
    slot[order] = torch.arange(len(order), device=order.device) - starts[group_M[order]]
    dense = torch.full((len(counts),), -1, dtype=torch.long, device=group_M.device)
    dense[used] = torch.arange(len(used), device=group_M.device)
    padded = query_ME.new_zeros(len(used), int(counts.max()), query_ME.shape[1])
    padded = padded.index_put((dense[group_M], slot), query_ME)
    logits = padded @ items_NE[groups.members_CG[used]].transpose(1, 2)  # (U, Q, G)
    logits = logits.masked_fill(~groups.valid_CG[used][:, None], float("-inf"))
    rows = logits[dense[group_M], slot] * sharpness_M[:, None]  # (M, G)
    log_probs = rows - rows.logsumexp(dim=-1, keepdim=True)
    return -log_probs[leaf_T, groups.slot_of_N[item_T]].mean()


def catalog_nll(query_XE: Tensor, items_NE: Tensor, state_T: Tensor, item_T: Tensor, tau: float) -> Tensor:
    """Catalogue-wide item loss: mean of -log softmax of cos/tau over all N items (exact, so no logQ correction).

    Source: our choice (design decision 5), so that vectors are comparable across prefixes.
    """
    logits = query_XE @ items_NE.T / tau
    log_probs = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_probs[state_T, item_T].mean()
