"""Parts of the heads: what may be copied, what a request is about, the pointer over the history, and gains.

Holds modules and small value objects, no backbone and no prompt layout. A gain is a number the state decides: it starts at a
given value, the same for all requests, and training learns when to raise it. Source: our choice (pointer-generator networks).

Shape legend: B users, Q states of a user, J history items, D hidden, E item width, T width of match vectors, S statistics, K codes,
U sets of statistics (a training shard each), N items, V aspects of a request.
"""

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sigma_core.data.item_activity import NUM_ACTIVITY_STATS, item_statistics, prefix_statistics
from sigma_core.instruction.collate import NUM_STATS

ENOUGH: Final = 0.9  # of the way from the catalogue's typical match to its best: from here on words fit
STEEPNESS: Final = 16.0  # how fast they stop fitting below; both chosen on 2017-06-26
BEST_PREFIXES: Final = 6  # whose mean match is a request's best one
_LEAST_RANGE: Final = 0.05
LEAST: Final = 1e-15  # of a prefix's probability: logarithms stay finite, and so do gradients of shares of it


class ItemTensors(NamedTuple):
    """What the model knows of N items, rows aligned."""

    vectors_NE: Tensor  # v~, unit rows
    text_NT: Tensor  # match vectors of the texts: what a request's words are compared with
    prefixes_NP: Tensor


DECAYED_STAT = 2  # column of the slowly decayed count, a log


class Activity(NamedTuple):
    """How much items and prefixes are bought, in U sets: one a day in training, one alone in serving."""

    item_UNS: Tensor
    prefix_UKS: Tensor  # of first codes


def activity_tensors(
    counts_UNA: np.ndarray, code_N: np.ndarray, num_codes: int, device: torch.device
) -> Activity:
    """Statistics of each set of counts; `code_N` are the items' first codes."""
    return Activity(
        torch.as_tensor(np.stack([item_statistics(counts) for counts in counts_UNA]), device=device),
        torch.as_tensor(
            np.stack([prefix_statistics(counts, code_N, num_codes) for counts in counts_UNA]), device=device
        ),
    )


class Memory(NamedTuple):
    """What the heads may copy from: the user's favourites and recent items, more than the prompt has room for."""

    hidden_BJD: Tensor  # as the prompt would hold them, without their prefix
    vector_BJE: Tensor
    text_BJT: Tensor  # match vectors; T is 0 where no request of the batch has words
    stats_BJS: Tensor  # of user and item (`NUM_STATS`), then of the item (`NUM_ACTIVITY_STATS`)
    prefix_BJP: Tensor  # codes; -1 where padded
    row_BJ: Tensor  # item rows; 0 where padded
    valid_BJ: Tensor
    may_BJ: Tensor  # whether it may be returned

    def of(self, user: Tensor) -> "Memory":
        """The memory of each given user, one row a request or leaf; itself where every user has one."""
        if torch.equal(user, torch.arange(len(self.row_BJ), device=user.device)):
            return self
        return Memory(*(part[user] for part in self))

    def bought_under(self, num_codes: int) -> Tensor:
        """Logs of 1 + decayed purchases and of 1 + items of the history under each first code (B, 2, K)."""
        code = self.prefix_BJP[:, :, 0].clamp_min(0)
        known = self.valid_BJ.float()
        much = self.stats_BJS[..., DECAYED_STAT].exp() * known
        sums = known.new_zeros(len(code), 2, num_codes)
        sums.scatter_add_(2, code[:, None].expand(-1, 2, -1), torch.stack((much, known), dim=1))
        return sums.log1p()

    def only(self, allowed_BJ: Tensor) -> "Memory":
        """The same memory in which no other items may be returned; what would be copied of them is nobody's."""
        return self._replace(may_BJ=self.may_BJ & allowed_BJ)


class Focus(NamedTuple):
    """What each state's request is about, in one or several aspects."""

    text_BQVT: Tensor
    valid_BQV: Tensor  # bool
    item_BQE: Tensor  # v~ of the words alone, the mean of the aspects
    range_BQ2: Tensor  # match of the catalogue's typical prefix, and of its best ones

    @property
    def present(self) -> Tensor:
        """1.0 where the request has words, 0.0 elsewhere, (B, Q, 1)."""
        return self.valid_BQV.any(dim=-1, keepdim=True).float()

    def match(self, text_BNT: Tensor) -> Tensor:
        """Match (cosine of meaning, plus that of words) of each text with the aspect nearest to it (B, Q, N); 0 for a
        request without words.

        `text_BNT` may be (N, T): the same texts for all.
        """
        batch, states, aspects, width = self.text_BQVT.shape
        flat = self.text_BQVT.reshape(batch, states * aspects, width) @ text_BNT.transpose(-1, -2)
        cosine = flat.view(batch, states, aspects, -1).masked_fill(~self.valid_BQV[..., None], -2.0)
        return cosine.amax(dim=2) * self.present

    def fit(self, match_BQN: Tensor) -> Tensor:
        """Whether texts of these matches answer the words, as a log-probability (B, Q, N); 0 for a request without words.

        Some words are near to many things and some to few, so a match is taken as its way from the catalogue's typical match to
        the best: near the best all fit alike, and what tells them apart is who asks and what is bought. Our choice.
        """
        return fit_of(match_BQN, self.range_BQ2) * self.present


def fit_of(match_N: Tensor, range_2: Tensor) -> Tensor:
    """`Focus.fit` of matches (..., N) of requests with words, whose catalogue has the range (..., 2) of `match_range`."""
    low, high = range_2[..., :1], range_2[..., 1:]
    share = (match_N - low) / (high - low).clamp_min(_LEAST_RANGE)
    return nn.functional.logsigmoid(STEEPNESS * (share - ENOUGH))


def match_range(match_XK: Tensor) -> Tensor:
    """Typical match of the prefixes (their median) and that of the best `BEST_PREFIXES` together, (X, 2)."""
    best = match_XK.topk(min(BEST_PREFIXES, match_XK.shape[1]), dim=1).values.mean(dim=1)
    if match_XK.device.type == "cpu":
        middle = match_XK.median(dim=1).values
    else:  # CUDA's median is refused where trainings shall repeat bit by bit; this is the same value
        middle = match_XK.sort(dim=1).values[:, (match_XK.shape[1] - 1) // 2]
    return torch.stack((middle, best), dim=1)


class PrefixScores(NamedTuple):
    """One level of step 1."""

    log_prob_BQK: Tensor  # rows sum to one before any mask
    copied_BQJ: Tensor  # the part of it that points at each history item: sums to at most one
    generated_BQK: Tensor  # the part of it that does not: what is copied and this make a row's one

    @classmethod
    def of(cls, generated_BQK: Tensor, copied_BQJ: Tensor, prefix_BJP: Tensor, level: int) -> "PrefixScores":
        """Both parts together."""
        code = prefix_BJP[:, None, :, level].clamp_min(0).expand_as(copied_BQJ)
        copied = torch.zeros_like(generated_BQK).scatter_add(2, code, copied_BQJ)
        return cls((generated_BQK + copied).clamp_min(LEAST).log(), copied_BQJ, generated_BQK)

    def only(self, memory: Memory, level: int) -> "PrefixScores":
        """Without what points at items that may not be returned: rows no longer sum to one, for nobody inherits it."""
        return PrefixScores.of(
            self.generated_BQK, self.copied_BQJ * memory.may_BJ[:, None], memory.prefix_BJP, level
        )


class ItemScores(NamedTuple):
    """What ranks the items under a prefix, beside their vectors."""

    query_BQE: Tensor  # unit vectors h at <q>
    focus_BQ: Tensor  # weight of cos(words, item text); 0 without words
    fit_BQ: Tensor  # weight of whether it fits the words (`Focus.fit`); 0 without words
    activity_BQS: Tensor  # weights of the item's statistics


class Gains(nn.Module):
    """`len(start)` numbers that a state decides; `start` before training. `scale` is the unit the state moves them in."""

    def __init__(self, hidden: int, start: list[float], scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.zeros(len(start), hidden))
        self.gain = nn.Parameter(torch.tensor(start))

    def forward(self, state: Tensor) -> Tensor:
        """(..., D) to (..., len(start))."""
        return self.scale * nn.functional.linear(state, self.weight) + self.gain


class Pointer(nn.Module):
    """Weights over history items, from a state: content match plus a state-dependent reading of the statistics."""

    def __init__(self, hidden: int, start: list[float], width: int = 16) -> None:
        super().__init__()
        size = NUM_STATS + NUM_ACTIVITY_STATS
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.features = nn.Sequential(nn.Linear(size, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.weights = nn.Linear(hidden, width)
        self.linear = Gains(hidden, start + [0.0] * (size - len(start)))  # begins as: copy by decayed count
        with torch.no_grad():
            for layer in (self.query, self.weights):
                layer.weight.mul_(0.1)
                layer.bias.zero_()

    def logits(self, state_BQD: Tensor, memory: Memory) -> Tensor:
        """Unnormalised log-weights (B, Q, J); what cannot be copied is -inf."""
        scale = state_BQD.shape[-1] ** -0.5
        content = self.query(state_BQD) @ self.key(memory.hidden_BJD).transpose(1, 2) * scale
        shaped = self.weights(state_BQD) @ self.features(memory.stats_BJS).transpose(1, 2)
        linear = self.linear(state_BQD) @ memory.stats_BJS.transpose(1, 2)
        return (content + shaped + linear).masked_fill(~memory.valid_BJ[:, None], float("-inf"))


def masked_softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis; a row of only -inf (or of nothing) gives zeros, not NaN."""
    if logits.shape[-1] == 0:
        return logits
    top = logits.amax(dim=-1, keepdim=True)
    weights = (logits - top.masked_fill(top.isinf(), 0.0)).exp()
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-30)


def best_match(match_BQJ: Tensor, match_BQK: Tensor, memory: Memory) -> Tensor:
    """How much better the history's best match with the words is than the best prefix's, (B, Q, 1); 0 without history.

    Copying is for requests that the history can answer: nobody who never bought charcoal should be shown their bread for it.
    """
    if match_BQJ.shape[-1] == 0:
        return torch.zeros_like(match_BQK[..., :1])
    mine = match_BQJ.masked_fill(~memory.valid_BJ[:, None], -1.0).amax(dim=-1, keepdim=True)
    return mine - match_BQK.amax(dim=-1, keepdim=True)


class Slots:
    """Regroups a flat list of states by user: `pad` gives (B, Q, ...) with zeros, `flat` undoes it."""

    def __init__(self, group_X: Tensor, num_groups: int) -> None:
        counts = torch.bincount(group_X, minlength=num_groups)
        order = torch.argsort(group_X, stable=True)
        slot = torch.empty_like(group_X)
        starts = counts.cumsum(0) - counts
        slot[order] = torch.arange(len(order), device=group_X.device) - starts[group_X[order]]
        self.group_X, self.slot_X = group_X, slot
        self.shape = (num_groups, int(counts.max()) if len(group_X) else 0)

    def pad(self, values_X: Tensor) -> Tensor:
        """(X, ...) to (B, Q, ...)."""
        out = values_X.new_zeros(*self.shape, *values_X.shape[1:])
        return out.index_put((self.group_X, self.slot_X), values_X)

    def flat(self, values_BQ: Tensor) -> Tensor:
        """(B, Q, ...) to (X, ...)."""
        return values_BQ[self.group_X, self.slot_X]
