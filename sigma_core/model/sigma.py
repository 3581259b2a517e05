"""SigmaModel: the LLM with prefix tokens, item vectors and the two heads that answer.

Holds the network only: what stands where in a prompt is `instruction/collate.py`, losses are `losses.py`, search is
`generation/`. L_NTP reads the state at the answer's <|start|>, L_InfoNCE the state at <q> after the target prefix.

Source: paper, hybrid tokenization and SFT. Our choice, for small backbones: both heads may also *copy* from the history
(a pointer over history items, after pointer-generator networks), and the words a request is about enter as a text-only
item vector (the focus). Without history and focus both reduce to the paper's heads.

Shape legend: B users, L positions, D hidden, J history items, R requests, M leaves, P prefix length, K codes per level,
N items, E item width, T text width, S statistics.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sigma_core.instruction.collate import NUM_ROLES, NUM_SPECIALS, NUM_STATS, TreeBatch
from sigma_core.model.backbone import build_backbone, is_mini
from sigma_core.model.fusion import ItemStreams, ProjectAndFuse

if TYPE_CHECKING:
    import numpy as np

    from sigma_core.config import ModelConfig


class ModelShape(NamedTuple):
    """Sizes that come from data and earlier stages, not from the config."""

    text_dim: int
    id_dim: int
    image_dim: int
    prefix_length: int
    codebook_size: int
    lexical_dim: int


class Memory(NamedTuple):
    """What the heads may copy from: the user's history items after the backbone has read them."""

    hidden_BJD: Tensor
    vector_BJE: Tensor
    stats_BJS: Tensor
    prefix_BJP: Tensor  # codes; -1 where padded
    valid_BJ: Tensor

    def of(self, user: Tensor) -> "Memory":
        """The memory of each given user, one row a request or leaf."""
        return Memory(*(part[user] for part in self))


@dataclass
class TensorBatch:
    """A `TreeBatch` as tensors on the model's device, with the vectors of its focus texts."""

    tree: TreeBatch
    focus_FT: Tensor
    device: torch.device

    def __getattr__(self, name: str) -> Tensor:
        value = torch.as_tensor(getattr(self.tree, name), device=self.device)
        self.__dict__[name] = value
        return value


def tree_mask(batch: Any) -> Tensor:
    """Additive mask (B, 1, L, L): a token sees earlier tokens of the trunk, of its own branch, and of its own leaf."""
    branch, leaf, valid = batch.branch_BL, batch.leaf_BL, batch.valid_BL
    same_branch = branch[:, None, :] == branch[:, :, None]
    same_leaf = (leaf[:, None, :] == 0) | (leaf[:, None, :] == leaf[:, :, None])
    visible = (branch[:, None, :] == 0) | (same_branch & same_leaf)
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=branch.device).tril()
    visible = visible & causal & valid[:, None, :]
    visible = visible | torch.eye(
        length, dtype=torch.bool, device=branch.device
    )  # a padded row sees itself: no NaN
    mask = torch.zeros(visible.shape, dtype=torch.float32, device=branch.device)
    return mask.masked_fill_(~visible, torch.finfo(torch.float32).min)[:, None]


class PrefixTokens(nn.Module):
    """Embeddings of prefix tokens, tied between input and output: a map of the code's centroid plus a free part.

    The map is shared, so a code that training never saw still lies where its centroid says.
    """

    centroids: Tensor  # (P, K, T), set from the codebooks

    def __init__(self, shape: ModelShape, hidden: int) -> None:
        super().__init__()
        self.register_buffer(
            "centroids", torch.zeros(shape.prefix_length, shape.codebook_size, shape.text_dim)
        )
        self.project = nn.Linear(shape.text_dim, hidden, bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.free = nn.Parameter(torch.zeros(shape.prefix_length, shape.codebook_size, hidden))
        self.level = nn.Parameter(torch.randn(shape.prefix_length, 1, hidden) * 0.02)

    def forward(self) -> Tensor:
        """Embeddings (P, K, D)."""
        return self.project(self.centroids) + self.free + self.level


class CopyAttention(nn.Module):
    """Weights over history items, from a state: content match plus a state-dependent reading of the statistics."""

    def __init__(self, hidden: int, start: list[float], width: int = 16) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.features = nn.Sequential(nn.Linear(NUM_STATS, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.weights = nn.Linear(hidden, width)
        self.linear = nn.Linear(hidden, NUM_STATS)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor(start))  # begins as: copy by decayed count
            for layer in (self.query, self.weights):
                layer.weight.mul_(0.1)
                layer.bias.zero_()

    def logits(self, state_BQD: Tensor, memory: Memory) -> Tensor:
        """Unnormalised log-weights (B, Q, J); padding is -inf."""
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


class SigmaModel(nn.Module):
    """Backbone, prefix tokens, fusion and heads."""

    def __init__(self, config: "ModelConfig", shape: ModelShape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        self.backbone = build_backbone(config)
        hidden = self.backbone.config.hidden_size
        self.fusion = ProjectAndFuse.of(config, shape)
        self.prefix_tokens = PrefixTokens(shape, hidden)
        self.word_project = nn.Linear(shape.lexical_dim, hidden) if is_mini(config) else nn.Identity()
        self.specials = nn.Parameter(torch.randn(NUM_SPECIALS, hidden) * 0.02)
        self.item_project = nn.Linear(config.item_dim, hidden)
        self.roles = nn.Parameter(torch.randn(NUM_ROLES, hidden) * 0.02)
        self.stats_project = nn.Linear(NUM_STATS, hidden)
        # heads
        self.prefix_head = nn.Linear(hidden, hidden)
        self.prefix_scale = nn.Parameter(torch.tensor(1.0))
        self.prefix_bias = nn.Parameter(torch.zeros(shape.prefix_length, shape.codebook_size))
        self.focus_prefix = nn.Linear(shape.text_dim, hidden, bias=False)
        self.focus_gate = nn.Linear(hidden, 2)
        self.copy_prefix = CopyAttention(hidden, [0.0, 0.0, 1.2, 0.1])
        self.copy_gate = nn.Linear(hidden, 1)
        self.item_head = nn.Linear(hidden, config.item_dim)
        self.copy_item = CopyAttention(hidden, [0.0, 0.0, 1.5, 0.0])
        self.copy_item_scale = nn.Linear(hidden, 1)
        self.same_prefix_bonus = nn.Parameter(torch.tensor(8.0))
        with torch.no_grad():
            self.focus_prefix.weight.copy_(self.prefix_tokens.project.weight)
            self.focus_gate.weight.zero_()
            self.focus_gate.bias.copy_(torch.tensor([4.0, 1.0]))
            self.copy_item_scale.bias.fill_(2.0)
            self.copy_gate.bias.fill_(2.5)
            for head in (self.copy_gate, self.copy_item_scale):
                head.weight.zero_()
            self.item_head.weight.mul_(0.1)
            self.item_head.bias.zero_()

    # ------------------------------------------------------------------------------------ inputs
    def fuse_text_only(self, focus_FT: Tensor) -> Tensor:
        """v~ (F, E) of free texts: items of which nothing but words are known."""
        size, device = len(focus_FT), focus_FT.device
        absent = torch.zeros(size, dtype=torch.bool, device=device)
        return self.fusion(
            ItemStreams(
                focus_FT,
                torch.zeros(size, self.shape.id_dim, device=device),
                absent,
                torch.zeros(size, self.shape.image_dim, device=device),
                absent,
            )
        )

    def embed(self, batch: TensorBatch, items_NE: Tensor, lexical_VW: Tensor) -> Tensor:
        """Input vectors (B, L, D) of the batch."""
        hidden = self.specials.shape[1]
        out = torch.zeros(*batch.word_BL.shape, hidden, device=items_NE.device)
        at = batch.word_BL >= 0
        out[at] = self.word_project(lexical_VW[batch.word_BL[at]])
        at = batch.special_BL >= 0
        out[at] = self.specials[batch.special_BL[at]]
        at = batch.prefix_BL >= 0
        out[at] = self.prefix_tokens().flatten(0, 1)[batch.prefix_BL[at]]
        at = batch.item_BL >= 0
        out[at] = (
            self.item_project(items_NE[batch.item_BL[at]])
            + self.roles[batch.role_BL[at]]
            + self.stats_project(batch.stats_BLS[at])
        )
        at = batch.focus_BL >= 0
        if len(batch.focus_FT):
            vectors = self.fuse_text_only(batch.focus_FT)
            out[at] = self.item_project(vectors[batch.focus_BL[at]]) + self.roles[batch.role_BL[at]]
        return out

    def read(self, batch: TensorBatch, items_NE: Tensor, lexical_VW: Tensor, cache: Any = None) -> Tensor:
        """States (B, L, D) after the backbone; fills `cache` when one is given."""
        extra = {"past_key_values": cache, "use_cache": True} if cache is not None else {}
        result = self.backbone(
            inputs_embeds=self.embed(batch, items_NE, lexical_VW),
            attention_mask=tree_mask(batch),
            position_ids=batch.position_BL,
            **extra,
        )
        return result.last_hidden_state

    def memory(self, batch: TensorBatch, states_BLD: Tensor, items_NE: Tensor, prefixes_NP: Tensor) -> Memory:
        """The copyable history of each user."""
        place, row = batch.memory_position_BJ, batch.memory_row_BJ
        valid = place >= 0
        index = place.clamp_min(0)
        hidden = states_BLD.gather(1, index[..., None].expand(-1, -1, states_BLD.shape[-1]))
        safe = row.clamp_min(0)
        prefix = prefixes_NP[safe].masked_fill(~valid[..., None], -1)
        return Memory(hidden, items_NE[safe], batch.memory_stats_BJS, prefix, valid)

    # ------------------------------------------------------------------------------------- heads
    def prefix_log_probs(
        self, state_BQD: Tensor, memory: Memory, level: int, so_far_BQP: Tensor, focus: "Focus | None" = None
    ) -> Tensor:
        """log P(code of `level` | state), (B, Q, K); rows sum to one before any mask.

        `so_far_BQP` are the codes already chosen (its first `level` columns are read).
        """
        embeddings = self.prefix_tokens()[level]
        scale = self.prefix_scale * state_BQD.shape[-1] ** -0.5
        logits = self.prefix_head(state_BQD) @ embeddings.T * scale + self.prefix_bias[level]
        if focus is not None and level == 0:
            strength = self.focus_gate(state_BQD)[..., :1] * focus.present_BQ[..., None]
            logits = logits + strength * (self.focus_prefix(focus.text_BQT) @ embeddings.T)
        generated = logits.softmax(dim=-1)
        weights = self.copy_prefix.logits(state_BQD, memory)
        if level:
            path = so_far_BQP[:, :, None, :level] == memory.prefix_BJP[:, None, :, :level]
            weights = weights.masked_fill(~path.all(dim=-1), float("-inf"))
        copied_BQJ = masked_softmax(weights)
        code = memory.prefix_BJP[:, None, :, level].clamp_min(0).expand_as(copied_BQJ)
        copied = torch.zeros_like(generated).scatter_add(2, code, copied_BQJ)
        gate = torch.sigmoid(self.copy_gate(state_BQD)) * copied.sum(dim=-1, keepdim=True)
        return ((1 - gate) * generated + gate * copied).clamp_min(1e-9).log()

    def item_query(
        self, state_BQD: Tensor, memory: Memory, prefix_BQP: Tensor, focus: "Focus | None" = None
    ) -> Tensor:
        """Unit query vectors h (B, Q, E) at <q>, to be compared with v~ by cosine."""
        out = self.item_head(state_BQD)
        same = (memory.prefix_BJP[:, None] == prefix_BQP[:, :, None]).all(dim=-1)
        weights = masked_softmax(self.copy_item.logits(state_BQD, memory) + self.same_prefix_bonus * same)
        out = out + self.copy_item_scale(state_BQD) * (weights @ memory.vector_BJE)
        if focus is not None:
            strength = self.focus_gate(state_BQD)[..., 1:] * focus.present_BQ[..., None]
            out = out + strength * focus.item_BQE
        return nn.functional.normalize(out, dim=-1)

    def focus(self, batch: TensorBatch, index_X: Tensor, slots: Slots) -> "Focus | None":
        """What each state's request is about, padded like the states; none when no request of the batch has words."""
        if not len(batch.focus_FT):
            return None
        at = index_X.clamp_min(0)
        vectors = self.fuse_text_only(batch.focus_FT)
        return Focus(slots.pad(batch.focus_FT[at]), slots.pad(vectors[at]), slots.pad((index_X >= 0).float()))


class Focus(NamedTuple):
    """The words a request is about, one row a state."""

    text_BQT: Tensor
    item_BQE: Tensor
    present_BQ: Tensor  # 1.0 or 0.0


def item_streams(features: Any, device: torch.device | str = "cpu") -> ItemStreams:
    """`ItemFeatures` as fusion inputs on the device."""
    image: np.ndarray | None = features.image
    size = len(features.item_ids)
    return ItemStreams(
        torch.as_tensor(features.text, device=device),
        torch.as_tensor(features.id, device=device),
        torch.as_tensor(features.has_id, device=device),
        torch.zeros(size, 0, device=device) if image is None else torch.as_tensor(image, device=device),
        torch.as_tensor(features.has_image, device=device),
    )
