"""Step 1: beam search over semantic-ID prefixes that exist, with one shared history.

Holds the search and the cached states it needs; what is under a prefix is step 2's business. A prefix no eligible item has
can never be generated: masks come from the items that share each prefix (`AllowedPrefixes`) and fail closed. Source: paper,
three-step item generation, step 1.

Shape legend: B users, R requests, K beams, C codes per level, P prefix length, L past positions, D hidden, J history items,
S statistics.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from sigma_core.generation.subset_search import PrefixRanges, prefix_bounds
from sigma_core.model.decoder import KeyValues, Trail, read_beams
from sigma_core.model.heads import Focus

if TYPE_CHECKING:
    from sigma_core.model.heads import Memory
    from sigma_core.model.sigma import SigmaModel, TensorBatch

NEGATIVE = torch.finfo(torch.float32).min
LEAST = 1e-12  # of a share, before its logarithm


class Beams(NamedTuple):
    """Prefixes of each request, best first. A slot that no prefix fills has log-probability -inf."""

    prefix_RKP: Tensor
    log_prob_RK: Tensor  # log P(c | T) among prefixes whose first code holds an eligible item
    query_RKE: Tensor  # unit vectors h at <q>
    focus_RK: Tensor  # weight of cos(words, item text) under each prefix
    fit_RK: Tensor  # weight of whether an item fits the words
    activity_RKS: Tensor  # weights of the items' statistics
    share_RKJ: Tensor  # share of P(c | T) that points at each history item; 0 for items of other prefixes
    row_RJ: Tensor  # item rows of the history
    generated_RK: Tensor  # share of P(c | T) that points at no item: with all of `share_RKJ` one


class Past(Protocol):
    """Keys and values every new token of a request may see (the user's trunk and the request's branch), and the beams so far."""

    def extend(self, model: "SigmaModel", embeds_RKSD: Tensor, parent_RK: Tensor, depth: int) -> Tensor:
        """Feeds S new tokens to each of K beams, `depth` tokens after <|start|>; states (R, K, D) of their last ones.

        A new token sees the request's past, its beam's earlier tokens (those of beam `parent_RK` of the call before) and
        the new tokens before it.
        """


class AllowedPrefixes(NamedTuple):
    """Which prefixes hold an eligible item, per request.

    `rows_QP` lists the distinct prefixes of the catalog, sorted; `mask_RQ` says which of them a request may use. With a filter,
    `open_RQ` is how much is bought of the eligible items under each prefix and `whole_RQ` of all, both above 0 where there are any.
    """

    rows_QP: Tensor
    mask_RQ: Tensor
    open_RQ: Tensor | None = None
    whole_RQ: Tensor | None = None

    @classmethod
    def all_of(cls, rows_QP: Tensor, num_requests: int) -> "AllowedPrefixes":
        """Every prefix, for requests without a filter."""
        return cls(rows_QP, torch.ones(num_requests, len(rows_QP), dtype=torch.bool, device=rows_QP.device))

    @classmethod
    def of(
        cls, ranges: "PrefixRanges", group_N: Tensor, eligible_RN: Tensor, bought_UN: Tensor, set_R: Tensor
    ) -> "AllowedPrefixes":
        """Those that hold an eligible item, which do not lose all they have, and how much of what is bought they keep.

        `group_N` is each item's prefix, `bought_UN` how much is bought of it (above 0) on each day, `set_R` each request's day.
        """
        whole_UQ = bought_UN.new_zeros(len(bought_UN), len(ranges.rows_QP))
        whole_RQ = whole_UQ.index_add_(1, group_N, bought_UN)[set_R]
        few_R1 = 2 * eligible_RN.sum(dim=1, keepdim=True) < eligible_RN.shape[1]
        request, item = (eligible_RN == few_R1).nonzero(as_tuple=True)  # the smaller of "may" and "may not"
        where = request, group_N[item]
        one = whole_RQ.new_ones(1).expand(len(item))
        count = torch.zeros_like(whole_RQ).index_put_(where, one, accumulate=True)
        bought = torch.zeros_like(whole_RQ).index_put_(
            where, bought_UN[set_R[request], item], accumulate=True
        )
        may = torch.where(few_R1, count > 0, count < ranges.length_Q)
        return cls(ranges.rows_QP, may, torch.where(few_R1, bought, whole_RQ - bought), whole_RQ)

    def existing(self) -> "AllowedPrefixes":
        """The same prefixes, whatever a request may use."""
        return self._replace(mask_RQ=torch.ones_like(self.mask_RQ))

    def codes(self, level: int, so_far_RKP: Tensor, num_codes: int) -> Tensor:
        """Allowed codes (R, K, C) at `level` after the codes already chosen."""
        return self._summed(self.mask_RQ, level, so_far_RKP, num_codes) > 0

    def reach(self, level: int, so_far_RKP: Tensor, num_codes: int) -> Tensor | None:
        """The share (R, K, C) of what is bought under each code that a request may have; None without a filter."""
        if self.open_RQ is None or self.whole_RQ is None:
            return None
        may, whole = (
            self._summed(part, level, so_far_RKP, num_codes) for part in (self.open_RQ, self.whole_RQ)
        )
        return may / whole.clamp_min(LEAST)

    def _summed(self, values_RQ: Tensor, level: int, so_far_RKP: Tensor, num_codes: int) -> Tensor:
        """Sums (R, K, C) of a value of each prefix over those that go on with each code."""
        start, end = prefix_bounds(self.rows_QP[:, :level], so_far_RKP[..., :level])
        place = torch.arange(int((end - start).max()), device=start.device)
        row = (start[..., None] + place).clamp_max(len(self.rows_QP) - 1)  # (R, K, W)
        request = torch.arange(len(row), device=row.device)[:, None, None]
        values = values_RQ[request, row].float() * (place < (end - start)[..., None])
        out = torch.zeros(*row.shape[:2], num_codes, device=row.device)
        return out.scatter_add_(2, self.rows_QP[:, level][row], values)


class CachedPast:
    """A past in a transformers cache, for decoders of any family."""

    def __init__(self, batch: "TensorBatch", layers: tuple[KeyValues, ...]) -> None:
        """Cuts each request's visible positions out of the users' rows."""
        from transformers import DynamicCache

        user, (index, self.valid_RL) = batch.request_user_R, visible_positions(batch)
        self.cache = DynamicCache()  # rows are requests
        for number, (key, value) in enumerate(layers):
            heads, size = key.shape[1], key.shape[3]
            at = index[:, None, :, None].expand(-1, heads, -1, size)
            self.cache.update(key[user].gather(2, at), value[user].gather(2, at), number)
        self.next_position_R = batch.position_BL[user, batch.request_start_R] + 1
        self.places_RKA = torch.zeros(len(user), 1, 0, dtype=torch.long, device=user.device)

    def extend(self, model: "SigmaModel", embeds_RKSD: Tensor, parent_RK: Tensor, depth: int) -> Tensor:
        """See `Past`."""
        num, beams, size, hidden = embeds_RKSD.shape
        ancestors = self.places_RKA.gather(1, parent_RK[..., None].expand(-1, -1, self.places_RKA.shape[2]))
        old = self.cache.get_seq_length()
        width = self.valid_RL.shape[1]
        device = embeds_RKSD.device
        visible = torch.zeros(num, beams, size, old + beams * size, dtype=torch.bool, device=device)
        visible[..., :width] = self.valid_RL[:, None, None]
        if ancestors.shape[2]:
            visible.scatter_(3, ancestors[:, :, None].expand(-1, -1, size, -1), True)
        place = old + torch.arange(beams * size, device=device).view(1, beams, size).expand(num, -1, -1)
        for step in range(size):
            visible[:, :, step:].scatter_(
                3, place[:, :, step, None, None].expand(-1, -1, size - step, 1), True
            )
        mask = torch.zeros(visible.shape, device=device).masked_fill_(~visible, NEGATIVE)
        position = self.next_position_R[:, None, None] + depth + torch.arange(size, device=device)
        states = model.backbone(
            inputs_embeds=embeds_RKSD.reshape(num, beams * size, hidden),
            attention_mask=mask.view(num, 1, beams * size, -1),
            position_ids=position.expand(-1, beams, -1).reshape(num, -1),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.places_RKA = torch.cat((ancestors, place), dim=2)
        return states.view(num, beams, size, hidden)[:, :, -1]


class SharedPast:
    """A past that lies where reading the prompt left it: no copy a beam, and none a request while users ask one thing."""

    def __init__(self, batch: "TensorBatch", layers: tuple[KeyValues, ...]) -> None:
        user = batch.request_user_R
        if torch.equal(user, torch.arange(len(batch.valid_BL), device=user.device)):
            branch = batch.branch_BL
            self.layers, self.valid_RL = layers, batch.valid_BL & (branch <= 1)
        else:
            index, self.valid_RL = visible_positions(batch)
            at = user[:, None]
            self.layers = tuple(
                KeyValues(*(part[at, :, index].transpose(1, 2) for part in layer)) for layer in layers
            )
        self.next_position_R = batch.position_BL[user, batch.request_start_R] + 1
        self.trail: Trail | None = None

    def extend(self, model: "SigmaModel", embeds_RKSD: Tensor, parent_RK: Tensor, depth: int) -> Tensor:
        """See `Past`."""
        trail = None if self.trail is None else self.trail.of(parent_RK)
        steps = torch.arange(embeds_RKSD.shape[2], device=parent_RK.device)
        states, self.trail = read_beams(
            model.backbone,
            self.layers,
            self.valid_RL,
            trail,
            embeds_RKSD,
            self.next_position_R[:, None] + depth + steps,
            is_last=depth == model.shape.prefix_length - 1,
        )
        return states


def visible_positions(batch: "TensorBatch") -> tuple[Tensor, Tensor]:
    """Positions (R, L) of each request's trunk and own branch, in order and first, and which of them are real."""
    user, start = batch.request_user_R, batch.request_start_R
    branch = batch.branch_BL[user, start]  # (R,)
    visible = batch.valid_BL[user] & (
        (batch.branch_BL[user] == 0) | (batch.branch_BL[user] == branch[:, None])
    )
    width = int(visible.sum(dim=1).max())
    index = torch.argsort((~visible).long(), dim=1, stable=True)[:, :width]
    return index, visible.gather(1, index)


def prefix_beam(
    model: "SigmaModel",
    start_R1D: Tensor,
    memory_R: "Memory",
    focus_R: "Focus | None",
    past: Past,
    allowed: AllowedPrefixes,
    num_beams: int,
    prefix_RCS: Tensor | None = None,
    surest: int = 0,
) -> Beams:
    """Best `num_beams` prefixes of each request, their probabilities and what ranks the items under each.

    `memory_R` says which of its items may be returned (`Memory.only`): the pointer copies no other.

    With a filter a prefix is worth searching for what it may still give: the `surest` most probable ones come along, the others by
    P(c | T), of which what no history item copies counts by the share of purchases that is eligible. Probabilities stay what they
    are, and so does the order (our choice: a filter for launches leaves a probable prefix one item in twenty, and the launches
    under all others unsearched).

    With `num_beams` at least the number of allowed prefixes this is exhaustive scoring. Requests are independent: a batch
    gives what single requests give.
    """
    from sigma_core.instruction.collate import QUERY

    depth, num_codes = model.shape.prefix_length, model.shape.codebook_size
    existing, filtered = allowed.existing(), not bool(allowed.mask_RQ.all())
    barred = bool((memory_R.valid_BJ & ~memory_R.may_BJ).any())
    embeddings = model.prefix_tokens()
    num, device = len(start_R1D), start_R1D.device
    chosen = torch.zeros(num, 1, 0, dtype=torch.long, device=device)
    score = torch.zeros(num, 1, device=device)
    state = start_R1D  # (R, K, D)
    for level in range(depth):
        focus = None if focus_R is None else Focus(*(_widened(part, state.shape[1]) for part in focus_R))
        scores = model.prefix_scores(state, memory_R, level, chosen, focus, prefix_RCS)
        last = level == depth - 1
        open_codes = allowed.codes(level, chosen, num_codes)
        # one number a request at level 0; deeper, a code that the filter emptied leaves nothing to its siblings
        whole = open_codes if level == 0 or not filtered else existing.codes(level, chosen, num_codes)
        norm = scores.log_prob_BQK.masked_fill(~whole, -torch.inf).logsumexp(dim=-1, keepdim=True)
        if last and barred:  # before the last level, other items may be reached through what is copied
            scores = scores.only(memory_R, level)
        log_probs = (scores.log_prob_BQK - norm).masked_fill(~open_codes, -torch.inf)
        total = (score[..., None] + log_probs).flatten(1)  # (R, K*C)
        reach = allowed.reach(level, chosen, num_codes)
        if reach is not None:  # copies count whole: what may not be returned is out at the last level
            made = (scores.generated_BQK.log() - scores.log_prob_BQK).exp().nan_to_num(0.0).clamp_max(1.0)
            reach = 1 - made * (1 - reach)
        score, flat = _best(total, None if reach is None else reach.flatten(1), num_beams, surest)
        parent, code = flat // num_codes, flat % num_codes
        chosen = torch.cat(
            (chosen.gather(1, parent[..., None].expand(-1, -1, level)), code[..., None]), dim=2
        )
        share = scores.copied_BQJ.gather(1, parent[..., None].expand(-1, -1, scores.copied_BQJ.shape[2]))
        mass = scores.log_prob_BQK.flatten(1).gather(1, flat).exp()
        share, generated = share / mass[..., None], scores.generated_BQK.flatten(1).gather(1, flat) / mass
        tokens = embeddings[level][code][:, :, None]  # (R, K, 1, D)
        if last:
            query = model.specials[QUERY].expand(*tokens.shape)
            tokens = torch.cat((tokens, query), dim=2)
        state = past.extend(model, tokens, parent, level)
    focus = None if focus_R is None else Focus(*(_widened(part, score.shape[1]) for part in focus_R))
    ranking = model.item_scores(state, memory_R, chosen, focus)
    inside = (memory_R.prefix_BJP[:, None] == chosen[:, :, None]).all(dim=-1)
    return Beams(
        chosen,
        score,
        ranking.query_BQE,
        ranking.focus_BQ,
        ranking.fit_BQ,
        ranking.activity_BQS,
        share * inside,
        memory_R.row_BJ,
        generated,
    )


def _best(total_RX: Tensor, reach_RX: Tensor | None, width: int, surest: int) -> tuple[Tensor, Tensor]:
    """The `width` best of each row and their places, by total; with a share `reach_RX` of each chosen by what both give, but for
    the `surest`.
    """
    width = min(width, total_RX.shape[1])
    if reach_RX is None:
        best = total_RX.topk(width, dim=1)
        return best.values, best.indices
    worth = total_RX + reach_RX.clamp_min(LEAST).log()
    first = total_RX.topk(min(surest, width), dim=1)
    worth.scatter_(1, first.indices, torch.where(first.values.isinf(), -torch.inf, torch.inf))
    flat = worth.topk(width, dim=1).indices
    score, order = total_RX.gather(1, flat).sort(dim=1, descending=True, stable=True)
    return score, flat.gather(1, order)


def _widened(part_R1: Tensor, width: int) -> Tensor:
    """(R, 1, ...) to (R, width, ...)."""
    return part_R1.expand(-1, width, *part_R1.shape[2:])
