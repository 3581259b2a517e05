"""SIGMA over sequences: three towers, prefixes first, then items within prefixes, and a catalogue-wide score beside them.

An item is its prefix and its unique vector v~, here the vectors of an ID stream, a text stream and a fused stream side by side
(`build.sigma` says what each starts from, and which compares by cosine and which by plain products); each stream reads the
sequence with a trunk of its own and must predict alone, which is what makes adding their scores worth it. Losses: next prefix
and InfoNCE within the prefix (softmax over all items that share it), both weighed by `steps_weight`, and the catalogue-wide
softmax on a share of the positions. Ranking is the paper's three steps with APF; fusing the catalogue-wide score into step 3
is our extension, its weight chosen on validation. Sources: paper, hybrid item tokenization, L_NTP, L_ID, three-step generation;
streams that share nothing but the prefixes are EnsRec's idea, the third one ours.

Shape legend: B sequences, X positions with a successor, N items, D width, C prefixes, G largest prefix group, T streams.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sigma_core.benchmarks.leave_one_out.losses import catalog_cross_entropy
from sigma_core.benchmarks.leave_one_out.networks import UNLISTED, Tower
from sigma_core.benchmarks.leave_one_out.sequence import Batch
from sigma_core.benchmarks.leave_one_out.settings import Sigma, TrunkShape
from sigma_core.benchmarks.leave_one_out.trainer import last_states, next_items
from sigma_core.generation.fusion import apf_sharpness, beam_sigma, in_prefix_log_probs, typical
from sigma_core.model.losses import PrefixGroups, group_products

FUSION_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the catalogue-wide score in step 3; chosen on validation
_FAR_BELOW = -40.0  # log-probability of an item whose prefix no beam reached


class _Stream(nn.Module):
    """One tower with its prefix head, and the query that knows the prefix."""

    def __init__(
        self, start_ND: Tensor, shape: TrunkShape, settings: Sigma, max_length: int, *, cosine: bool
    ) -> None:
        super().__init__()
        width = start_ND.shape[1]
        self.tower = Tower(start_ND, shape, max_length, cosine=cosine)
        self.prefix = nn.Linear(width, settings.num_prefixes)
        self.fed_back = nn.Parameter(torch.randn(settings.num_prefixes, width // 2) * 0.02)
        self.read = nn.Linear(width, width // 2)
        self.turn = nn.Linear(width // 2, width)
        nn.init.zeros_(self.turn.weight)
        self.log_sharpness = nn.Parameter(torch.tensor(shape.temperature).log().neg(), requires_grad=cosine)

    def within(self, state: Tensor, prefix: Tensor) -> Tensor:
        """Query at <q>, from the state and the prefix that was fed back: its products with the items are logits."""
        turned = self.turn(nn.functional.gelu(self.read(state) + self.fed_back[prefix]))
        query: Tensor = self.tower.query(state) + turned
        if not self.tower.cosine:
            return query
        return nn.functional.normalize(query, dim=-1) * self.log_sharpness.exp()


class _Steps(NamedTuple):
    """What the three steps need of a batch: log P(c) (B, C), logits within prefixes (B, C, G), catalogue (B, N)."""

    prefix_BC: Tensor
    within_BCG: Tensor
    catalog_BN: Tensor


class SigmaNetwork(nn.Module):
    """SIGMA's network; `starts` are the streams' first item vectors (N, D), `prefix_of_N` each item's prefix.

    A stream whose `cosine` is true compares unit rows over a learned temperature, any other takes plain products.
    """

    typical_sigma: Tensor

    def __init__(
        self,
        starts: list[Tensor],
        prefix_of_N: Tensor,
        shape: TrunkShape,
        settings: Sigma,
        max_length: int,
        *,
        cosine: Sequence[bool],
    ) -> None:
        super().__init__()
        self.settings = settings
        self.groups = PrefixGroups.build(prefix_of_N.long())
        num_used = len(self.groups.members_CG)
        self.streams = nn.ModuleList(
            _Stream(
                start, shape, settings.model_copy(update={"num_prefixes": num_used}), max_length, cosine=unit
            )
            for start, unit in zip(starts, cosine, strict=True)
        )
        self.register_buffer("typical_sigma", torch.tensor(0.0))  # 0: constant sharpness

    def loss(self, batch: Batch) -> Tensor:
        """Sum over streams of the catalogue-wide cross-entropy and `steps_weight` x (prefix + in-prefix cross-entropy)."""
        inputs, has_next, item_X = next_items(batch)
        prefix_X = self.groups.group_of_N[item_X]
        share = torch.randperm(len(item_X))[: max(1, round(len(item_X) * self.settings.catalog_share))]
        total = torch.zeros(())
        for stream in self._each_stream():
            items = stream.tower.items()
            state_XD = stream.tower.states(inputs, items)[has_next]
            steps = nn.functional.cross_entropy(stream.prefix(state_XD), prefix_X)
            logits = group_products(stream.within(state_XD, prefix_X), prefix_X, items, self.groups)
            logits = logits.masked_fill(~self.groups.valid_CG[prefix_X], float("-inf"))
            steps = steps + nn.functional.cross_entropy(logits, self.groups.slot_of_N[item_X])
            total = total + self.settings.steps_weight * steps
            query = stream.tower.queries(state_XD[share])
            total = total + catalog_cross_entropy(query, items, torch.arange(len(share)), item_X[share])
        return total

    def calibrate(self, batch: Batch) -> None:
        """Take the batch's requests as typical: APF's tau becomes such that they have the sharpness of training."""
        with torch.no_grad():
            sigma = self._sigma(self._steps(batch).prefix_BC)
            self.typical_sigma.copy_(typical(sigma))

    def _sigma(self, prefix_BC: Tensor) -> Tensor:
        return beam_sigma(prefix_BC.exp(), self.settings.sigma_top, self.settings.sigma_floor)

    def _each_stream(self) -> Iterator[_Stream]:
        for stream in self.streams:
            assert isinstance(stream, _Stream)
            yield stream

    def scores(self, batch: Batch) -> Tensor:
        """(B, N): the catalogue-wide score alone, by which validation chooses the epoch; the fusion weight comes after."""
        return self.ranked(batch, 1.0)

    def ranked(self, batch: Batch, weight: float) -> Tensor:
        """(B, N): (1 - weight) * log P of the three steps + weight * log P over the catalogue."""
        steps = self._steps(batch)
        if weight == 1.0:
            return steps.catalog_BN
        return (1 - weight) * self._three_steps(steps) + weight * steps.catalog_BN

    def _steps(self, batch: Batch) -> _Steps:
        every = torch.arange(len(self.groups.members_CG))
        prefix, within, catalog = [], [], []
        for stream in self._each_stream():
            items = stream.tower.items()
            state_BD = last_states(stream.tower.states(batch, items), batch)
            prefix.append(torch.log_softmax(stream.prefix(state_BD), dim=1))
            query_CBD = stream.within(state_BD[:, None], every).transpose(0, 1)
            within.append(query_CBD @ items[self.groups.members_CG].transpose(1, 2))  # (C, B, G)
            catalog.append(torch.log_softmax(stream.tower.queries(state_BD) @ items.T, dim=1))
        # Geometric means: a sum would be as sharp as two independent witnesses, and these are not.
        return _Steps(
            torch.log_softmax(torch.stack(prefix).mean(dim=0), dim=1),
            torch.stack(within).mean(dim=0).transpose(0, 1),
            torch.log_softmax(torch.stack(catalog).mean(dim=0), dim=1),
        )

    def _three_steps(self, steps: _Steps) -> Tensor:
        """log P(v) = log P(c) + log P(v | c) for items of the searched prefixes, far below for others."""
        own, valid_CG = self.settings, self.groups.valid_CG
        probability = steps.prefix_BC.exp()
        sharpness = torch.ones(len(probability))
        if self.typical_sigma > 0:
            usual = float(self.typical_sigma)
            sharpness = apf_sharpness(self._sigma(steps.prefix_BC), usual, usual, own.sharpness_bound)
        shape = steps.within_BCG.shape
        item = in_prefix_log_probs(
            steps.within_BCG.reshape(-1, shape[2]),
            valid_CG.expand(shape).reshape(-1, shape[2]),
            sharpness.repeat_interleave(shape[1]),
        ).view(shape)
        found = steps.prefix_BC[..., None] + item
        found = torch.where(_searched(probability, own.prefix_mass)[..., None], found, _FAR_BELOW)
        out = found.new_full((shape[0], len(self.groups.group_of_N)), UNLISTED)
        out[:, self.groups.members_CG[valid_CG]] = found[:, valid_CG]
        return out


def _searched(probability_BC: Tensor, mass: float) -> Tensor:
    """Bool (B, C): the most probable prefixes that together hold `mass`."""
    ordered, place = probability_BC.sort(dim=1, descending=True)
    wanted = ordered.cumsum(dim=1) - ordered < mass
    return torch.zeros_like(wanted).scatter_(1, place, wanted)
