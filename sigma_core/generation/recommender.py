"""The three steps, in order: prefix beam, search inside the prefixes, adaptive probabilistic fusion.

Answers requests with ranked items; loading artifacts is `serving/`, metrics are `evaluation/`. Every returned item exists,
is unique and obeys the request's filter. Source: paper, three-step item generation with APF.

Shape legend: R requests, K prefixes, N items, G largest group, X = R*K pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sigma_core.config import GenerationConfig
from sigma_core.generation.fusion import (
    Copies,
    apf_sharpness,
    beam_sigma,
    fuse,
    top_in_prefix,
    top_of_rows,
    with_catalog,
)
from sigma_core.generation.prefix_beam import (
    AllowedPrefixes,
    Beams,
    CachedPast,
    SharedPast,
    prefix_beam,
)
from sigma_core.generation.session_states import ReadStates, StatesStore, read_continued
from sigma_core.generation.subset_search import GroupHits, PrefixRanges, search_groups
from sigma_core.instruction.collate import Collator, Request, UserContext
from sigma_core.model.decoder import KeyValues, is_known
from sigma_core.model.heads import Activity, Focus, ItemTensors, Slots, fit_of
from sigma_core.model.sigma import TensorBatch

if TYPE_CHECKING:
    from sigma_core.model.sigma import SigmaModel

SPARE: Final = 20  # candidates of a collapsed list beside four times its length, which are read first
_BLOCK: Final = 1 << 27  # numbers of a catalogue-wide product held at a time


class Recommendation(NamedTuple):
    """One ranked item.

    `score` is P(item | request), `row` its row in the item table. `prefix_probability` is P(c | T) of step 1 and `item_probability`
    P(id | T, c) of step 2: their product is the score, but where the catalogue-wide score is fused in. None: not kept with the list.
    """

    row: int
    score: float
    prefix: tuple[int, ...]
    prefix_probability: float
    item_probability: float | None = None


@dataclass(frozen=True)
class ItemTable:
    """What the model knows of a catalog, rows sorted by prefix."""

    tensors: ItemTensors
    activity: Activity  # one set in serving; the probe has one a day
    text_group_N: Tensor | None = None  # items of one number count as one in a shown list

    @property
    def ranges(self) -> PrefixRanges:
        """Where each prefix lies."""
        return PrefixRanges.of_sorted(self.tensors.prefixes_NP)


@dataclass(frozen=True)
class Ask:
    """A request with its filter: rows that must not be returned."""

    request: Request
    exclude: np.ndarray | None = None


class Searched(NamedTuple):
    """What step 1 leaves to the others."""

    beams: Beams
    focus: Focus | None  # the requests' words, one state a request
    set_R: Tensor  # set of item statistics
    tokens_B: np.ndarray | None = None  # with sessions: tokens of each user's profile and history,
    kept_B: np.ndarray | None = None  # and how many of them were not read again


class Recommender:
    """Model, item table and settings; `rank` answers, deterministically."""

    def __init__(
        self,
        model: "SigmaModel",
        items: ItemTable,
        collator: Collator,
        lexical: Tensor,
        config: GenerationConfig,
        apf_temperature: float,
        typical_sigma: float,
    ) -> None:
        self.model, self.items, self.collator, self.lexical = model.eval(), items, collator, lexical
        self.config, self.apf_temperature, self.typical_sigma = config, apf_temperature, typical_sigma
        self.catalog_weight = 0.0  # of the catalogue-wide score in step 3; 0: pure APF
        self.sessions: StatesStore | None = None  # where users' trunk states are kept between calls
        self.ranges = items.ranges
        activity = (
            items.activity.item_UNS
        )  # in serving one set: then a product with [v~, statistics] gives logits
        self.scored_NF = (
            torch.cat((items.tensors.vectors_NE, activity[0]), dim=1) if len(activity) == 1 else None
        )
        length = self.ranges.length_Q
        self.group_of_N = torch.repeat_interleave(torch.arange(len(length), device=length.device), length)

    @property
    def device(self) -> torch.device:
        """Where model and item table lie; masks and numbers of sets must lie there too."""
        return self.items.tensors.vectors_NE.device

    @torch.inference_mode()
    def rank(
        self,
        users: Sequence[UserContext],
        asks: Sequence[Sequence[Ask]],
        focus: Mapping[str, np.ndarray],
        top_n: int,
        collapse: bool = False,
    ) -> list[list[Recommendation]]:
        """Ranked items of every request, in the order of users and their asks; at most `top_n` each.

        `focus` holds the grounded vector of every focus text. `collapse` keeps one item of a text group.
        """
        found, eligible = self.search(users, asks, focus)
        return self.answer(found, eligible, top_n, collapse)

    @torch.inference_mode()
    def search(
        self, users: Sequence[UserContext], asks: Sequence[Sequence[Ask]], focus: Mapping[str, np.ndarray]
    ) -> "tuple[Searched, Tensor]":
        """Step 1 for a batch of users, and which rows (R, N) each request may have: what `answer` goes on from."""
        eligible = self._eligible([ask for mine in asks for ask in mine])
        return self.beam(users, [[ask.request for ask in mine] for mine in asks], focus, eligible), eligible

    def beam(
        self,
        users: Sequence[UserContext],
        requests: Sequence[Sequence[Request]],
        focus: Mapping[str, np.ndarray],
        eligible_RN: Tensor,
        sets_B: Tensor | None = None,
    ) -> "Searched":
        """Step 1 for a batch of users; `sets_B` names the set of item statistics of each user's day."""
        model, items = self.model, self.items.tensors
        device = self.device
        sets = torch.zeros(len(users), dtype=torch.long, device=device) if sets_B is None else sets_B
        batch, read = self.read(users, requests, focus)
        user = batch.request_user_R
        memory = model.memory(batch, items, self.items.activity.item_UNS, sets).of(user)
        memory = memory.only(eligible_RN.gather(1, memory.row_BJ))
        one = Slots(torch.arange(len(user), device=device), len(user))
        if _is_one_value(eligible_RN):
            allowed = AllowedPrefixes.all_of(self.ranges.rows_QP, len(user))
        else:
            bought_UN = self.items.activity.item_UNS[..., 0].exp()  # 1 + events
            allowed = AllowedPrefixes.of(self.ranges, self.group_of_N, eligible_RN, bought_UN, sets[user])
        about = model.focus(batch, batch.request_focus_RV, one, read.start_RD)
        past = SharedPast if is_known(model.backbone) else CachedPast
        beams = prefix_beam(
            model,
            read.start_RD[:, None],
            memory,
            about,
            past(batch, read.layers()),
            allowed,
            min(max(self.config.num_prefixes, self.config.sigma_top), len(self.ranges.length_Q)),
            self.items.activity.prefix_UKS[sets[user]],
            self.config.sigma_top,
        )
        return Searched(beams, about, sets[user], read.tokens_B, read.kept_B)

    def read(
        self,
        users: Sequence[UserContext],
        requests: Sequence[Sequence[Request]],
        focus: Mapping[str, np.ndarray],
    ) -> tuple[TensorBatch, ReadStates]:
        """Lays the prompts out and reads them: all of them now, or on from what `sessions` keeps of the users."""
        model, tensors = self.model, self.items.tensors
        tree = self.collator(users, requests)
        about = np.asarray([focus[text] for text in tree.focus_texts], dtype=np.float32)
        about = about.reshape(-1, tensors.text_NT.shape[1])
        vectors = tensors.vectors_NE
        batch = TensorBatch(tree, torch.as_tensor(about, device=vectors.device), vectors.device)
        # kept states lie in the CPU's memory, and a GPU reads a prompt sooner than it fetches them
        if self.sessions is not None and is_known(model.backbone) and self.device.type == "cpu":
            names = [user.user_id for user in users]
            return batch, read_continued(model, batch, names, vectors, self.lexical, self.sessions)
        start_RD, layers = self._read(batch)
        return batch, ReadStates(start_RD, lambda: layers, *np.zeros((2, len(users)), dtype=np.int64))

    def _read(self, batch: TensorBatch) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """The whole prompt: states (R, D) at <|start|>, and keys and values of all tokens."""
        model, vectors = self.model, self.items.tensors.vectors_NE
        if is_known(model.backbone):
            return model.read_starts(batch, vectors, self.lexical)
        from transformers import DynamicCache

        cache = DynamicCache(config=model.backbone.config)
        states = model.read(batch, vectors, self.lexical, cache)
        start_RD = states[batch.request_user_R, batch.request_start_R]
        return start_RD, tuple(KeyValues(layer.keys, layer.values) for layer in cache.layers)

    def sharpness(self, found: "Searched") -> Tensor:
        """sigma / tau of APF for each request (R,), within its bounds."""
        sigma = beam_sigma(found.beams.log_prob_RK.exp(), self.config.sigma_top, self.config.sigma_floor)
        return apf_sharpness(sigma, self.apf_temperature, self.typical_sigma, self.config.sharpness_range)

    def searched(self, found: "Searched") -> Tensor:
        """Which beams (R, K) steps 2 and 3 look under: at most `num_prefixes`, the best up to `prefix_mass` together, that exist.

        The first prefix is always searched, and the one that reaches the mass is the last. Sigma is that of all beams, and there
        are always as many as it takes, so searching fewer drops items and changes no score.
        """
        log_prob = found.beams.log_prob_RK
        exists = ~log_prob.isinf()
        exists[:, self.config.num_prefixes :] = False
        if self.config.prefix_mass >= 1:
            return exists
        probability = log_prob.exp()
        total = (
            probability.cpu().cumsum(dim=1).to(probability.device)
        )  # CUDA's own does not repeat bit by bit
        before = total - probability
        return exists & (before < self.config.prefix_mass - 1e-6)

    def _eligible(self, asks: Sequence[Ask]) -> Tensor:
        shape = len(asks), len(self.items.tensors.vectors_NE)
        all_of_them = torch.ones(1, 1, dtype=torch.bool, device=self.device).expand(shape)
        if all(ask.exclude is None or not len(ask.exclude) for ask in asks):
            return all_of_them  # one value in memory, whatever the catalog
        out = all_of_them.contiguous()
        for row, ask in enumerate(asks):
            if ask.exclude is not None and len(ask.exclude):
                out[row, torch.as_tensor(ask.exclude.astype(np.int64))] = False
        return out

    def answer(
        self, found: "Searched", eligible_RN: Tensor, top_n: int, collapse: bool = False
    ) -> list[list[Recommendation]]:
        """Steps 2 and 3: lists of the beams' requests."""
        beams, num_items = found.beams, len(self.items.tensors.vectors_NE)
        num, width, _ = beams.query_RKE.shape
        group = self.ranges.find(beams.prefix_RKP.flatten(0, 1))
        group = group.masked_fill(~self.searched(found).flatten(), -1)
        order = torch.argsort(group, stable=True)  # pairs of one prefix together, until their best are found
        place = torch.argsort(order)
        hits = self._logits(found, group[order], order)
        logits = hits.cosine_XG
        kept = min(self.config.items_per_prefix, logits.shape[1])
        every = logits.shape[1] if self.catalog_weight else kept
        allowed = None
        if not _is_one_value(eligible_RN):
            rows = hits.rows(torch.arange(logits.shape[1], device=order.device), num_items)
            allowed = eligible_RN[(order // width)[:, None], rows]
        inside, slot = top_in_prefix(logits, self._copies(beams, group, order, place), every, allowed)
        inside, rows = inside[place], hits.rows(slot, num_items)[place]
        total = fuse(beams.log_prob_RK.flatten(), inside)
        if self.catalog_weight:
            total, chosen = self._with_catalog(beams, total, rows, kept)
            rows, inside = rows.gather(1, chosen), inside.gather(1, chosen)
        rows, total = rows.view(num, -1), total.view(num, -1)
        wanted = total.shape[1] if collapse else top_n
        # ties: the smaller row first, so that equal scores give equal lists
        order = torch.argsort(rows, dim=1, stable=True)
        total, rows, order = total.gather(1, order), rows.gather(1, order), order
        best, place = torch.sort(total, dim=1, descending=True, stable=True)
        best, place = best[:, :wanted], place[:, :wanted]
        row, origin = rows.gather(1, place), order.gather(1, place)
        beam, share = origin // kept, inside.view(num, -1).gather(1, origin).exp()
        return [self._list(row[r], best[r], beam[r], share[r], beams, r, top_n, collapse) for r in range(num)]

    def _with_catalog(
        self, beams: Beams, total_XG: Tensor, row_XG: Tensor, kept: int
    ) -> tuple[Tensor, Tensor]:
        """The `kept` best of each prefix and their places there, (X, kept), when the catalogue-wide score counts too."""
        vectors, tau = self.items.tensors.vectors_NE, self.model.config.temperature
        num, (pairs, width) = len(beams.query_RKE), total_XG.shape
        query_XE = beams.query_RKE.flatten(0, 1)
        step = max(1, _BLOCK // len(vectors))  # every item for every (request, beam) at once would not fit
        norm_X = torch.cat([(part @ vectors.T / tau).logsumexp(dim=1) for part in query_XE.split(step)])
        step = max(1, _BLOCK // (row_XG.shape[1] * vectors.shape[1]))
        blocks = zip(query_XE.split(step), row_XG.split(step), strict=True)
        cosine_XG = torch.cat([(vectors[row] @ part[..., None]).squeeze(-1) for part, row in blocks])
        fused = with_catalog(
            total_XG.view(num, -1),
            cosine_XG.view(num, -1),
            norm_X[:, None].expand(pairs, width).reshape(num, -1),
            tau,
            self.catalog_weight,
        )
        return top_of_rows(fused.view(pairs, width), kept)

    def _logits(self, found: "Searched", group_X: Tensor, pair_X: Tensor) -> GroupHits:
        """Hits whose "cosines" are logits: cosine * sharpness, how much an item is bought, how well it fits the words.

        `pair_X` numbers the (request, beam) pairs that stand under these groups, request by request.
        """
        beams, request_X = found.beams, pair_X // found.beams.query_RKE.shape[1]
        query = beams.query_RKE.flatten(0, 1)[pair_X] * self.sharpness(found)[request_X, None]
        weights = beams.activity_RKS.flatten(0, 1)[pair_X]
        if self.scored_NF is not None:
            hits = search_groups(torch.cat((query, weights), dim=1), group_X, self.scored_NF, self.ranges)
            logits = hits.cosine_XG
        else:
            vectors = self.items.tensors.vectors_NE
            hits = search_groups(query, group_X, vectors, self.ranges)
            rows = hits.rows(torch.arange(hits.cosine_XG.shape[1], device=group_X.device), len(vectors))
            statistics = self.items.activity.item_UNS[found.set_R[request_X][:, None], rows]
            logits = hits.cosine_XG + (statistics @ weights[..., None]).squeeze(-1)
        if found.focus is not None:
            match = self._matches(found.focus, group_X, hits.cosine_XG.shape[1], request_X)
            fits = fit_of(match, found.focus.range_BQ2[request_X, 0]) * found.focus.present[request_X, 0]
            logits = logits + beams.focus_RK.flatten()[pair_X, None] * match
            logits = logits + beams.fit_RK.flatten()[pair_X, None] * fits
        return hits._replace(cosine_XG=logits)

    def _matches(self, focus: Focus, group_X: Tensor, width: int, request_X: Tensor) -> Tensor:
        """Cosine (X, G) of each item with the aspect of its request nearest to it; -2 where there is none."""
        texts = self.items.tensors.text_NT
        best = texts.new_full((len(group_X), width), -2.0)
        for aspect in range(focus.valid_BQV.shape[2]):
            known = focus.valid_BQV[request_X, 0, aspect]
            cosine = search_groups(
                focus.text_BQVT[request_X, 0, aspect], group_X.masked_fill(~known, -1), texts, self.ranges
            ).cosine_XG
            if cosine.numel():
                part = best[:, : cosine.shape[1]]
                part.copy_(torch.maximum(part, cosine))
        return best

    def _copies(self, beams: Beams, group_X: Tensor, order_X: Tensor, place_X: Tensor) -> Copies:
        """The pointer's share of each item it points at under each beam; one item may stand in the history twice.

        `order_X` are the pairs as they stand in the search, `place_X` where each of `group_X` went.
        """
        request, beam, item = beams.share_RKJ.nonzero(as_tuple=True)
        at = request * beams.share_RKJ.shape[1] + beam
        known = group_X[at] >= 0
        request, beam, item, at = request[known], beam[known], item[known], at[known]
        slot = beams.row_RJ[request, item] - self.ranges.start_Q[group_X[at]]
        wide = int(self.ranges.length_Q.max()) + 1
        key, inverse = torch.unique(at * wide + slot, return_inverse=True)
        value = beams.share_RKJ[request, beam, item]
        total = value.new_zeros(len(key)).index_add_(0, inverse, value)
        return Copies(place_X[key // wide], key % wide, total, beams.generated_RK.flatten()[order_X])

    def _list(
        self,
        row: Tensor,
        score: Tensor,
        beam: Tensor,
        share: Tensor,
        beams: Beams,
        request: int,
        top_n: int,
        collapse: bool,
    ) -> list[Recommendation]:
        out: list[Recommendation] = []
        seen: set[int] = set()
        probability = beams.log_prob_RK[request].exp().tolist()
        prefixes = beams.prefix_RKP[request].tolist()
        group_N = self.items.text_group_N if collapse else None
        few = 4 * top_n + SPARE  # nearly always enough to collapse; the rest is read only where it is not
        for part in (slice(few), slice(few, None)):
            items = row[part]
            groups = items if group_N is None else group_N[items]  # no item stands twice in `row`
            columns = (of.tolist() for of in (items, score[part], beam[part], share[part], groups))
            for item, value, k, inside, group in zip(*columns, strict=True):
                if value == float("-inf") or len(out) == top_n:
                    return out
                if group in seen:
                    continue
                seen.add(group)
                out.append(
                    Recommendation(item, float(np.exp(value)), tuple(prefixes[k]), probability[k], inside)
                )
        return out


def _is_one_value(eligible_RN: Tensor) -> bool:
    """Whether one True stands for all of the mask, as where no request has a filter; an axis of one has a stride of its own."""
    steps = zip(eligible_RN.stride(), eligible_RN.shape, strict=True)
    return all(step == 0 or size == 1 for step, size in steps) and bool(eligible_RN[0, 0])
