"""Losses of the SFT stage, on plain tensors: next prefix token, item within its prefix, item within the catalogue.

Holds no model and no batch layout, so each can be tested against a float64 reference.

Shape legend: X states, M leaves, T targets, N items, C prefix groups, G largest group, E item width.
"""

from collections.abc import Iterable, Iterator
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
        counts = torch.bincount(group_of_N)
        slot = _places(group_of_N, counts)
        members = group_of_N.new_zeros(len(counts), int(counts.max()))
        valid = torch.zeros_like(members, dtype=torch.bool)
        members[group_of_N, slot] = torch.arange(len(group_of_N), device=group_of_N.device)
        valid[group_of_N, slot] = True
        return cls(members, valid, group_of_N, slot)


def prefix_nll(log_probs_XK: Tensor, state_T: Tensor, code_T: Tensor, weight_T: Tensor) -> Tensor:
    """L_NTP: weighted mean of -log P(code | state) over T targets. Source: paper, L_NTP."""
    picked = log_probs_XK[state_T, code_T]
    return -(picked * weight_T).sum() / weight_T.sum().clamp_min(1e-9)


class Copied(NamedTuple):
    """What a pointer explains of each target (T,) and leaves of each leaf's prefix (M,), as shares of P(prefix)."""

    rest_M: Tensor
    share_T: Tensor


def group_products(query_ME: Tensor, group_M: Tensor, items_NE: Tensor, groups: PrefixGroups) -> Tensor:
    """Product of each leaf's query with all items of its prefix group, (M, G), columns as in `PrefixGroups.members_CG`.

    One batched matrix product over padded groups, leaves sorted by group: no candidate is gathered per row. Columns of
    padding hold finite nonsense.
    """
    return next(each_group_products([query_ME], group_M, items_NE, groups))


def each_group_products(
    queries: Iterable[Tensor], group_M: Tensor, items_NE: Tensor, groups: PrefixGroups
) -> Iterator[Tensor]:
    """`group_products` of several queries (M, E) a leaf, one after another, over one copy of the groups' items.

    That copy (U used groups, G, E) is what a backward pass keeps; made anew for each query it would be kept as often.
    """
    counts = torch.bincount(group_M, minlength=len(groups.members_CG))
    used = counts.nonzero().squeeze(1)
    slot = _places(group_M, counts)
    dense = torch.full((len(counts),), -1, dtype=torch.long, device=group_M.device)
    dense[used] = torch.arange(len(used), device=group_M.device)
    items_UEG = items_NE[groups.members_CG[used]].transpose(1, 2)
    for query_ME in queries:
        padded = query_ME.new_zeros(len(used), int(counts.max()), query_ME.shape[1])
        padded = padded.index_put((dense[group_M], slot), query_ME)
        yield (padded @ items_UEG)[dense[group_M], slot]


def _places(group_X: Tensor, count_C: Tensor) -> Tensor:
    """The place of each row among the rows of its group, in their order."""
    order = torch.argsort(group_X, stable=True)
    starts = count_C.cumsum(0) - count_C
    place = torch.empty_like(group_X)
    place[order] = torch.arange(len(order), device=order.device) - starts[group_X[order]]
    return place


def in_prefix_info_nce(
    logits_MG: Tensor,
    group_M: Tensor,
    groups: PrefixGroups,
    leaf_T: Tensor,
    item_T: Tensor,
    copied: Copied | None = None,
) -> Tensor:
    """L_InfoNCE: mean over targets of -log P(item | prefix), the softmax being over *all* items of the prefix group.

    `logits_MG` are cosines times sharpness (`group_products`), and priors if any; `leaf_T` and `item_T` name each target's
    leaf and item row; a leaf may have several. With `copied`, a prefix that a pointer chose is answered by the pointer's own
    item: P = (1 - share) * softmax + share of the item. Source: paper, L_ID with hard negatives that share the target's
    prefix; the pointer's share is our choice.
    """
    logits = logits_MG.masked_fill(~groups.valid_CG[group_M], float("-inf"))
    log_probs = logits - logits.logsumexp(dim=-1, keepdim=True)
    found = log_probs[leaf_T, groups.slot_of_N[item_T]]
    if copied is not None:
        rest = copied.rest_M[leaf_T].clamp_min(1e-12).log()
        found = torch.logaddexp(rest + found, copied.share_T.clamp_min(1e-12).log())
    return -found.mean()


def catalog_nll(query_XE: Tensor, items_NE: Tensor, state_T: Tensor, item_T: Tensor, tau: float) -> Tensor:
    """Catalogue-wide item loss: mean of -log softmax of cos/tau over all N items (exact, so no logQ correction; `sampled_catalog_nll` draws).

    Source: our choice (design decision 5), so that vectors are comparable across prefixes.
    """
    logits = query_XE @ items_NE.T / tau
    log_probs = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_probs[state_T, item_T].mean()


def sampled_catalog_nll(
    query_XE: Tensor,
    items_NE: Tensor,
    state_T: Tensor,
    item_T: Tensor,
    tau: float,
    drawn_S: Tensor,
    chance_N: Tensor,
) -> Tensor:
    """`catalog_nll` over each target and S items drawn with replacement, `chance_N` being an item's chance at each draw.

    A drawn item counts exp(logit) / (S * chance), which makes the sum below the target's that of all others on average (logQ
    correction); drawing the target itself counts nothing. Source: Bengio and Senecal 2008; as in sampled-softmax recommenders.
    """
    drawn_XS = query_XE @ items_NE[drawn_S].T / tau - (len(drawn_S) * chance_N[drawn_S]).log()
    own_T = (query_XE[state_T] * items_NE[item_T]).sum(dim=-1) / tau
    others_TS = drawn_XS[state_T].masked_fill(drawn_S == item_T[:, None], float("-inf"))
    total_T = torch.cat((own_T[:, None], others_TS), dim=1).logsumexp(dim=-1)
    return (total_T - own_T).mean()
