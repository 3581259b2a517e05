"""Step 1: beam search over semantic-ID prefixes that exist, with one shared history.

Holds the search and the cached states it needs; what is under a prefix is step 2's business. A prefix no eligible item has
can never be generated: masks come from the prefix tree and fail closed. Source: paper, three-step item generation, step 1.

Shape legend: B users, R requests, K beams, C codes per level, P prefix length, L past positions, D hidden, J history items,
S statistics.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sigma_core.generation.subset_search import prefix_bounds
from sigma_core.model.heads import Focus

if TYPE_CHECKING:
    from sigma_core.model.heads import Memory
    from sigma_core.model.sigma import SigmaModel, TensorBatch

NEGATIVE = torch.finfo(torch.float32).min


class Beams(NamedTuple):
    """Prefixes of each request, best first. A slot that no prefix fills has log-probability -inf."""

    prefix_RKP: Tensor
    log_prob_RK: Tensor  # log P(c | T), renormalised over the allowed prefixes at every level
    query_RKE: Tensor  # unit vectors h at <q>
    focus_RK: Tensor  # weight of cos(words, item text) under each prefix
    activity_RKS: Tensor  # weights of the items' statistics
    share_RKJ: Tensor  # share of P(c | T) that points at each history item; 0 for items of other prefixes
    row_RJ: Tensor  # item rows of the history


class Past(NamedTuple):
    """Keys and values every new token of a request may see: the user's trunk and the request's branch."""

    cache: Any  # transformers DynamicCache, rows are requests
    valid_RL: Tensor
    next_position_R: Tensor


class AllowedPrefixes(NamedTuple):
    """Which prefixes hold an eligible item, per request.

    `rows_QP` lists the distinct prefixes of the catalog, sorted; `mask_RQ` says which of them a request may use.
    """

    rows_QP: Tensor
    mask_RQ: Tensor

    def codes(self, level: int, so_far_RKP: Tensor, num_codes: int) -> Tensor:
        """Allowed codes (R, K, C) at `level` after the codes already chosen."""
        start, end = prefix_bounds(self.rows_QP[:, :level], so_far_RKP[..., :level])
        place = torch.arange(int((end - start).max()), device=start.device)
        row = (start[..., None] + place).clamp_max(len(self.rows_QP) - 1)  # (R, K, W)
        request = torch.arange(len(row), device=row.device)[:, None, None]
        fits = (place < (end - start)[..., None]) & self.mask_RQ[request, row]
        out = torch.zeros(*row.shape[:2], num_codes, device=row.device)
        return out.scatter_add_(2, self.rows_QP[:, level][row], fits.float()) > 0


def request_past(batch: "TensorBatch", cache: Any, config: Any) -> Past:
    """Cuts each request's visible positions (trunk and own branch) out of the users' cache."""
    from transformers import DynamicCache

    user, start = batch.request_user_R, batch.request_start_R
    branch = batch.branch_BL[user, start]  # (R,)
    visible = batch.valid_BL[user] & (
        (batch.branch_BL[user] == 0) | (batch.branch_BL[user] == branch[:, None])
    )
    width = int(visible.sum(dim=1).max())
    index = torch.argsort((~visible).long(), dim=1, stable=True)[
        :, :width
    ]  # visible positions first, in order
    valid = visible.gather(1, index)
    out = DynamicCache(config=config)
    for number, layer in enumerate(cache.layers):
        heads, size = layer.keys.shape[1], layer.keys.shape[3]
        at = index[:, None, :, None].expand(-1, heads, -1, size)
        out.update(layer.keys[user].gather(2, at), layer.values[user].gather(2, at), number)
    return Past(out, valid, batch.position_BL[user, start] + 1)


def feed(
    model: "SigmaModel", past: Past, embeds_RKSD: Tensor, ancestors_RKA: Tensor, depth: int
) -> tuple[Tensor, Tensor]:
    """Feeds S new tokens to each of K beams in one forward pass; returns their states (R, K, S, D) and places (R, K, S).

    A new token sees the request's past, its beam's ancestors (places in the cache) and earlier new tokens of its beam.
    """
    num, beams, size, hidden = embeds_RKSD.shape
    old = past.cache.get_seq_length()
    width = past.valid_RL.shape[1]
    device = embeds_RKSD.device
    visible = torch.zeros(num, beams, size, old + beams * size, dtype=torch.bool, device=device)
    visible[..., :width] = past.valid_RL[:, None, None]
    if ancestors_RKA.shape[2]:
        visible.scatter_(3, ancestors_RKA[:, :, None].expand(-1, -1, size, -1), True)
    place = old + torch.arange(beams * size, device=device).view(1, beams, size).expand(num, -1, -1)
    for step in range(size):
        visible[:, :, step:].scatter_(3, place[:, :, step, None, None].expand(-1, -1, size - step, 1), True)
    mask = torch.zeros(visible.shape, device=device).masked_fill_(~visible, NEGATIVE)
    position = past.next_position_R[:, None, None] + depth + torch.arange(size, device=device)
    states = model.backbone(
        inputs_embeds=embeds_RKSD.reshape(num, beams * size, hidden),
        attention_mask=mask.view(num, 1, beams * size, -1),
        position_ids=position.expand(-1, beams, -1).reshape(num, -1),
        past_key_values=past.cache,
        use_cache=True,
    ).last_hidden_state
    return states.view(num, beams, size, hidden), place


def prefix_beam(
    model: "SigmaModel",
    start_R1D: Tensor,
    memory_R: "Memory",
    focus_R: "Focus | None",
    past: Past,
    allowed: AllowedPrefixes,
    num_beams: int,
    prefix_RCS: Tensor | None = None,
) -> Beams:
    """Best `num_beams` prefixes of each request, their probabilities and what ranks the items under each.

    `memory_R` must hold no item that may not be returned: the pointer copies whatever it finds there.

    With `num_beams` at least the number of allowed prefixes this is exhaustive scoring. Requests are independent: a batch
    gives what single requests give.
    """
    from sigma_core.instruction.collate import QUERY

    depth, num_codes = model.shape.prefix_length, model.shape.codebook_size
    embeddings = model.prefix_tokens()
    num, device = len(start_R1D), start_R1D.device
    chosen = torch.zeros(num, 1, 0, dtype=torch.long, device=device)
    score = torch.zeros(num, 1, device=device)
    state = start_R1D  # (R, K, D)
    places = torch.zeros(num, 1, 0, dtype=torch.long, device=device)
    for level in range(depth):
        focus = None if focus_R is None else Focus(*(_widened(part, state.shape[1]) for part in focus_R))
        scores = model.prefix_scores(state, memory_R, level, chosen, focus, prefix_RCS)
        log_probs = scores.log_prob_BQK
        open_codes = allowed.codes(level, chosen, num_codes)
        log_probs = log_probs.masked_fill(~open_codes, -torch.inf)
        log_probs = (log_probs - log_probs.logsumexp(dim=-1, keepdim=True)).masked_fill(
            ~open_codes, -torch.inf
        )
        total = (score[..., None] + log_probs).flatten(1)  # (R, K*C)
        score, flat = total.topk(min(num_beams, total.shape[1]), dim=1)
        parent, code = flat // num_codes, flat % num_codes
        chosen = torch.cat(
            (chosen.gather(1, parent[..., None].expand(-1, -1, level)), code[..., None]), dim=2
        )
        share = scores.copied_BQJ.gather(1, parent[..., None].expand(-1, -1, scores.copied_BQJ.shape[2]))
        share = share / scores.log_prob_BQK.flatten(1).gather(1, flat).exp()[..., None]
        places = places.gather(1, parent[..., None].expand(-1, -1, places.shape[2]))
        tokens = embeddings[level][code][:, :, None]  # (R, K, 1, D)
        if level == depth - 1:
            query = model.specials[QUERY].expand(*tokens.shape)
            tokens = torch.cat((tokens, query), dim=2)
        states, place = feed(model, past, tokens, places, level)
        places = torch.cat((places, place[:, :, :1]), dim=2)
        state = states[:, :, -1]
    focus = None if focus_R is None else Focus(*(_widened(part, score.shape[1]) for part in focus_R))
    ranking = model.item_scores(state, memory_R, chosen, focus)
    inside = (memory_R.prefix_BJP[:, None] == chosen[:, :, None]).all(dim=-1)
    return Beams(
        chosen,
        score,
        ranking.query_BQE,
        ranking.focus_BQ,
        ranking.activity_BQS,
        share * inside,
        memory_R.row_BJ,
    )


def _widened(part_R1: Tensor, width: int) -> Tensor:
    """(R, 1, ...) to (R, width, ...)."""
    return part_R1.expand(-1, width, *part_R1.shape[2:])
