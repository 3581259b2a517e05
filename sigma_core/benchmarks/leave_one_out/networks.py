"""The learned opponents: one tower with a catalogue-wide softmax (SASRec, the text model of EnsRec, GR (ID)), and GR (SID).

Every position of a sequence predicts its successor. SIGMA itself is `sigma_network.py`. Sources: SASRec (Kang and McAuley
2018) with the full cross-entropy of later work; EnsRec adds the scores of an ID and a text model; GR (ID) and GR (SID) are the
paper's ablation rows; their sizes are our choice.

Shape legend: B sequences, L longest, X positions with a successor, N items, D width, S codes of an item, K entries of a level.
"""

import torch
from torch import Tensor, nn

from sigma_core.benchmarks.leave_one_out.losses import catalog_cross_entropy
from sigma_core.benchmarks.leave_one_out.sequence import Batch, ByteDropout, Trunk
from sigma_core.benchmarks.leave_one_out.settings import BeamSearch, TrunkShape
from sigma_core.benchmarks.leave_one_out.trainer import last_states, next_items

UNLISTED = -1e9  # items a beam did not reach share the last place


class Tower(nn.Module):
    """Item vectors, trained from where `start` (N, D) puts them, and the trunk that reads them.

    With `cosine` vectors and queries are unit rows and logits cosines over a learned temperature, else plain products.
    """

    def __init__(self, start_ND: Tensor, shape: TrunkShape, max_length: int, *, cosine: bool) -> None:
        super().__init__()
        width = start_ND.shape[1]
        self.vectors = nn.Parameter(start_ND.clone())
        self.cosine = cosine
        self.trunk = Trunk(
            width, blocks=shape.blocks, heads=shape.heads, drop=shape.drop, max_length=max_length
        )
        self.input_drop = ByteDropout(shape.input_drop)
        self.query = nn.Linear(width, width) if cosine else nn.Identity()
        self.log_sharpness = nn.Parameter(torch.tensor(shape.temperature).log().neg(), requires_grad=cosine)

    def items(self) -> Tensor:
        """(N, D) item vectors, as input and as output."""
        return nn.functional.normalize(self.vectors, dim=1) if self.cosine else self.vectors

    def states(self, batch: Batch, items_ND: Tensor) -> Tensor:
        """(B, L, D)."""
        vectors = nn.functional.embedding(batch.items_BL, items_ND)  # its backward is faster than indexing's
        return self.trunk(self.input_drop(vectors * items_ND.shape[1] ** 0.5))

    def queries(self, states: Tensor) -> Tensor:
        """(..., D): their products with `items()` are logits over the catalogue."""
        if not self.cosine:
            return states
        return nn.functional.normalize(self.query(states), dim=-1) * self.log_sharpness.exp()


class CatalogModel(nn.Module):
    """A tower that ranks by the softmax over the whole catalogue, exact in training too."""

    def __init__(self, start_ND: Tensor, shape: TrunkShape, max_length: int, *, cosine: bool) -> None:
        super().__init__()
        self.tower = Tower(start_ND, shape, max_length, cosine=cosine)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy of the successors."""
        inputs, has_next, item_X = next_items(batch)
        items = self.tower.items()
        query = self.tower.queries(self.tower.states(inputs, items)[has_next])
        return catalog_cross_entropy(query, items, torch.arange(len(item_X)), item_X)

    def scores(self, batch: Batch) -> Tensor:
        """(B, N) log-probabilities."""
        items = self.tower.items()
        query = self.tower.queries(last_states(self.tower.states(batch, items), batch))
        return torch.log_softmax(query @ items.T, dim=1)


class SemanticIdModel(nn.Module):
    """GR (SID): items are their S codes, read as the sum of code vectors and written code by code.

    Scores come from beam search over the codes that items have; what no beam reached shares the last place.
    """

    codes_NS: Tensor

    def __init__(self, codes_NS: Tensor, shape: TrunkShape, search: BeamSearch, max_length: int) -> None:
        super().__init__()
        self.register_buffer("codes_NS", codes_NS.long(), persistent=False)
        self.beams = search.width
        width = shape.width
        sizes = [int(size) + 1 for size in codes_NS.amax(dim=0)]
        self.codes = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        for table in self.codes:
            nn.init.normal_(table.weight, std=width**-0.5)  # type: ignore[arg-type]
        self.trunk = Trunk(
            width, blocks=shape.blocks, heads=shape.heads, drop=shape.drop, max_length=max_length
        )
        self.input_drop = ByteDropout(shape.input_drop)
        self.mix = nn.ModuleList(nn.Linear(width, 2 * width) for _ in sizes)
        self.write = nn.ModuleList(nn.Linear(2 * width, size) for size in sizes)
        self.tries = [_Trie.build(codes_NS.long(), level, sizes[level]) for level in range(len(sizes))]

    def _states(self, batch: Batch) -> Tensor:
        codes = self.codes_NS[batch.items_BL]
        summed = torch.stack([table(codes[..., level]) for level, table in enumerate(self.codes)]).sum(dim=0)
        return self.trunk(self.input_drop(summed))

    def _logits(self, level: int, state: Tensor) -> Tensor:
        return self.write[level](nn.functional.gelu(self.mix[level](state)))

    def loss(self, batch: Batch) -> Tensor:
        """Mean over successors of the sum of their codes' cross-entropies, each given the codes before it."""
        inputs, has_next, item_X = next_items(batch)
        state = self._states(inputs)[has_next]
        total = state.new_zeros(())
        for level, table in enumerate(self.codes):
            code = self.codes_NS[item_X, level]
            total = total + nn.functional.cross_entropy(self._logits(level, state), code)
            state = state + table(code)
        return total

    def scores(self, batch: Batch) -> Tensor:
        """(B, N) log-probabilities of the items that beam search found, `UNLISTED` for the others."""
        state_BWD = last_states(self._states(batch), batch)[:, None]
        score_BW = state_BWD.new_zeros(state_BWD.shape[:2])
        node_BW = torch.zeros(score_BW.shape, dtype=torch.long)
        rows = torch.arange(len(state_BWD))[:, None]
        for level, (table, trie) in enumerate(zip(self.codes, self.tries, strict=True)):
            logits = self._logits(level, state_BWD).masked_fill(trie.child[node_BW] < 0, float("-inf"))
            log_probs = torch.log_softmax(logits, dim=-1)
            log_probs = log_probs.masked_fill(log_probs.isnan(), float("-inf"))  # a beam without children
            logits = score_BW[..., None] + log_probs
            size = logits.shape[-1]
            flat = logits.flatten(1)
            score_BW, place = flat.topk(min(self.beams, flat.shape[1]), dim=1)
            parent, code = place // size, place % size
            state_BWD = state_BWD[rows, parent] + table(code)
            node_BW = trie.child[node_BW[rows, parent], code].clamp_min(0)
        out = score_BW.new_full((len(score_BW), len(self.codes_NS)), UNLISTED)
        leaf = self.tries[-1].leaf_of_N  # items of one full code share its score
        by_leaf = score_BW.new_full((len(score_BW), int(leaf.max()) + 1), UNLISTED)
        by_leaf.scatter_reduce_(1, node_BW, score_BW.clamp_min(UNLISTED), reduce="amax")
        return torch.maximum(out, by_leaf[:, leaf])


class _Trie:
    """Nodes of one level: which child each node of the level before has for a code, and each item's node."""

    def __init__(self, child: Tensor, leaf_of_N: Tensor) -> None:
        self.child = child  # int64 [parents, K], -1 where no item continues so
        self.leaf_of_N = leaf_of_N

    @classmethod
    def build(cls, codes_NS: Tensor, level: int, size: int) -> "_Trie":
        before = codes_NS[:, :0] if level == 0 else codes_NS[:, :level]
        parent = (
            torch.unique(before, dim=0, return_inverse=True)[1]
            if level
            else torch.zeros(len(codes_NS)).long()
        )
        node = torch.unique(codes_NS[:, : level + 1], dim=0, return_inverse=True)[1]
        child = torch.full((int(parent.max()) + 1, size), -1, dtype=torch.long)
        child[parent, codes_NS[:, level]] = node
        return cls(child, node)
