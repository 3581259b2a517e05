"""Step 3, adaptive probabilistic fusion (APF): beam scores and cosines become one probability per item.

Takes beam scores, cosines and temperatures; it never sees a task's name and has no learned parameter. Source: paper,
three-step item generation:  P(v | T) = P(c | T) * P(id | T, c),  P(id | T, c) proportional to exp(cos(h, v~) * sigma / tau)
with sigma the standard deviation of the top beam scores. Normalised over the whole prefix group, so a score does not depend on
M, and a filter leaves the odds within a prefix as they are; sigma is that of the prefixes that may answer, bounded below and
always taken over K_sigma scores (our choices, design decision 7).

Shape legend: R requests, K prefixes, X rows of cosines, G items of a group.
"""

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

BLOCK: Final = 8  # of a long row: its maximum stands for it
LEAST_REST: Final = 1e-30  # of a prefix that is copied all but whole: its logarithm stays finite


def beam_sigma(probability_RK: "Tensor", top: int, floor: float) -> "Tensor":
    """Standard deviation (R,) of the `top` largest probabilities of each row, at least `floor`.

    Missing ones (fewer than `top` prefixes exist) count as probability 0. It is the population standard deviation, and does
    not depend on how many prefixes are searched as long as the beam holds `top` of them.
    """
    best = probability_RK.topk(min(top, probability_RK.shape[1]), dim=1).values
    if best.shape[1] < top:
        best = best.new_zeros(len(best), top).index_copy(
            1, best.new_tensor(range(best.shape[1])).long(), best
        )
    return best.std(dim=1, unbiased=False).clamp_min(floor)


def typical(sigma_R: "Tensor") -> "Tensor":
    """Geometric mean of sigmas. Requests come in two kinds, peaked and flat beams; a median jumps between them."""
    return sigma_R.log().mean().exp()


def apf_sharpness(
    sigma_R: "Tensor", apf_temperature: "float | Tensor", typical_sigma: "float | Tensor", bound: float
) -> "Tensor":
    """sigma / tau_APF (R,), kept within that of a typical request divided and multiplied by `bound`.

    The bounds are our choice: between a one-hot and a flat beam sigma varies by more than an order of magnitude, and at the
    extremes items are ranked by noise or by the top item alone.
    """
    ratio = (sigma_R / typical_sigma).clamp(1 / bound, bound)
    return ratio * (typical_sigma / apf_temperature)


def in_prefix_log_probs(
    cosine_XG: "Tensor",
    valid_XG: "Tensor",
    sharpness_X: "Tensor",
    prior_XG: "Tensor | None" = None,
    copied_XG: "Tensor | None" = None,
) -> "Tensor":
    """log P(id | T, c) (X, G): log-softmax of cosine * sharpness over the valid items; invalid ones are -inf.

    `sharpness_X` is sigma/tau of APF, or a constant for "without APF". A row without a valid item is all -inf. Our
    extensions, both off in the paper's form: `prior_XG` are logits that sharpness leaves alone, and `copied_XG` is the share of
    P(c | T) that points at each item, which the item gets outright: P = (1 - sum of shares) * softmax + share.
    """
    logits = cosine_XG * sharpness_X[:, None]
    if prior_XG is not None:
        logits = logits + prior_XG
    logits = logits.masked_fill(~valid_XG, -math.inf)
    found = logits - logits.logsumexp(dim=1, keepdim=True)
    if copied_XG is not None:
        rest = (1 - copied_XG.sum(dim=1, keepdim=True)).clamp_min(1e-6)
        found = (rest.log() + found).logaddexp(copied_XG.log())
        found = found - found.logsumexp(dim=1, keepdim=True)
    return found.masked_fill(~valid_XG, -math.inf)


class Copies(NamedTuple):
    """Shares of P(c | T) that point at single items: share `value_Z` of row `row_Z` at slot `slot_Z`; pairs are distinct.

    `rest_X` is what is left of each row, told and not one minus the shares: near zero that difference would be rounding alone.
    """

    row_Z: "Tensor"
    slot_Z: "Tensor"
    value_Z: "Tensor"
    rest_X: "Tensor"


def top_in_prefix(
    logits_XG: "Tensor", copies: Copies, kept: int, allowed_XG: "Tensor | None" = None
) -> "tuple[Tensor, Tensor]":
    """The `kept` largest log P(id | T, c) of each row and their slots, (X, kept): `in_prefix_log_probs`, then topk.

    `logits_XG` are cosine * sharpness + prior, -inf where invalid, and are changed. Everything but the copied items moves by one
    number a row, so only what is kept is normalised, and only copied items are mixed. What a filter takes away (`allowed_XG` is
    False) is not kept, and nobody inherits its probability: a prefix that lost its best items stands back as a whole.
    """
    norm_X = logits_XG.logsumexp(dim=1)
    taken_X = norm_X.new_zeros(len(norm_X)).index_add_(0, copies.row_Z, copies.value_Z)
    rest_X = copies.rest_X.clamp_min(LEAST_REST)
    shift_X = rest_X.log() - norm_X
    old_Z = logits_XG[copies.row_Z, copies.slot_Z]
    mixed_Z = (old_Z + shift_X[copies.row_Z]).logaddexp(copies.value_Z.log()) - shift_X[copies.row_Z]
    logits_XG[copies.row_Z, copies.slot_Z] = mixed_Z.masked_fill(old_Z.isinf(), -math.inf)
    if allowed_XG is not None:
        logits_XG.masked_fill_(~allowed_XG, -math.inf)
    best, slot = top_of_rows(logits_XG, kept)
    whole_X = (rest_X + taken_X).log()
    found = (best + (shift_X - whole_X)[:, None]).masked_fill(best.isinf(), -math.inf)
    return found, slot


def top_of_rows(values_XG: "Tensor", kept: int) -> "tuple[Tensor, Tensor]":
    """The `kept` largest of each row and their slots, as topk; of long rows only the blocks with the largest maxima are sorted.

    The largest `kept` values lie in the `kept` blocks of the largest maxima: a block outside has `kept` values above all its own.
    """
    rows, width = values_XG.shape
    kept = min(kept, width)
    if width < 4 * BLOCK * kept:
        best = values_XG.topk(kept, dim=1)
        return best.values, best.indices
    whole = width // BLOCK * BLOCK
    blocks = values_XG[:, :whole].unflatten(1, (-1, BLOCK))
    chosen = blocks.amax(dim=2).topk(kept, dim=1).indices  # (X, kept)
    few = blocks.gather(1, chosen[..., None].expand(-1, -1, BLOCK)).flatten(1)
    slot = (chosen[..., None] * BLOCK + chosen.new_tensor(range(BLOCK))).flatten(1)
    rest = chosen.new_tensor(range(whole, width)).expand(rows, -1)
    best = torch.cat((few, values_XG[:, whole:]), dim=1).topk(kept, dim=1)
    slot = torch.cat((slot, rest), dim=1)
    return best.values, slot.gather(1, best.indices)


def with_catalog(
    fused_RX: "Tensor", cosine_RX: "Tensor", log_norm_RX: "Tensor", tau: float, weight: float
) -> "Tensor":
    """APF and the catalogue-wide score as a product of experts: log of P(v | T) * Q(v | T, c) ** weight, scaled per request so that
    it holds as much probability as before.

    Q is the softmax of cosine / tau over the whole catalog: `log_norm_RX` is the log of its sum under each candidate's prefix.
    Candidates that may not be listed are -inf and stay so; `fused_RX` are all others of the request, else scores would depend on
    how many are kept. One weight serves every task; 0 changes nothing. Source: our choice (design decision 9).
    """
    total = fused_RX + weight * (cosine_RX / tau - log_norm_RX)
    moved = fused_RX.logsumexp(dim=1, keepdim=True) - total.logsumexp(dim=1, keepdim=True)
    return (total + moved).masked_fill(fused_RX.isinf(), -math.inf)


def fuse(prefix_log_prob_X: "Tensor", item_log_prob_XG: "Tensor") -> "Tensor":
    """log P(v | T) = log P(c | T) + log P(id | T, c), (X, G)."""
    return prefix_log_prob_X[:, None] + item_log_prob_XG
