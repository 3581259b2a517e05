"""SigmaModel: the LLM with prefix tokens, item vectors and the two heads that answer.

Holds the network only: what stands where in a prompt is `instruction/collate.py`, losses are `losses.py`, search is
`generation/`. L_NTP reads the state at the answer's <|start|>, L_InfoNCE the state at <q> after the target prefix.

Source: paper, hybrid tokenization and SFT. Our choice, for small backbones: both heads may also *copy* from the history
(a pointer over history items, after pointer-generator networks), the words a request is about (the focus) are compared with
what prefixes and items say, and how much things are bought enters as a prior. At zero weight of all three both are the paper's heads.

Shape legend: B users, L positions, D hidden, J history items, R requests, M leaves, P prefix length, K codes per level,
N items, E item width, T text width, S statistics.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sigma_core.data.item_activity import NUM_ACTIVITY_STATS
from sigma_core.instruction.collate import NUM_ROLES, NUM_SPECIALS, NUM_STATS, TreeBatch
from sigma_core.model.backbone import build_backbone, is_mini
from sigma_core.model.decoder import KeyValues, read_prompt
from sigma_core.model.fusion import ItemStreams, ProjectAndFuse
from sigma_core.model.heads import (
    Focus,
    Gains,
    ItemScores,
    ItemTensors,
    Memory,
    Pointer,
    PrefixScores,
    Slots,
    best_match,
    masked_softmax,
    match_range,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    match_dim: int  # of v_text and hashed words together
    free_items: int = 0  # items whose v~ has a free part


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
        self._made: tuple[tuple[tuple[int, int], ...], Tensor] | None = None

    def forward(self) -> Tensor:
        """Embeddings (P, K, D). Without gradients they are made once for as long as no tensor they come from changes."""
        parts = (self.centroids, self.project.weight, self.free, self.level)
        if torch.is_grad_enabled() or any(part.is_inference() for part in parts):
            return self._embeddings()
        state = tuple((part.data_ptr(), part._version) for part in parts)  # noqa: SLF001 documented, no public name
        if self._made is None or self._made[0] != state:
            self._made = state, self._embeddings()
        return self._made[1]

    def _embeddings(self) -> Tensor:
        found: Tensor = self.project(self.centroids) + self.free + self.level
        return found


class SigmaModel(nn.Module):
    """Backbone, prefix tokens, fusion and heads."""

    prefix_match: (
        Tensor  # (K, T + W), mean match vector of the items under each first code, set from the refit's items
    )

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
        self.prefix_gain = Gains(hidden, [1.0])
        self.register_buffer("prefix_match", torch.zeros(shape.codebook_size, shape.match_dim))
        self.prefix_bias = nn.Parameter(torch.zeros(shape.prefix_length, shape.codebook_size))
        self.prefix_activity = Gains(hidden, [1.0] + [0.0] * (NUM_ACTIVITY_STATS - 1))  # by popularity
        # how much words count: in prefixes, items, the pointer, the query vector, the gate
        self.focus_gain = Gains(hidden, [15.0, 10.0, 15.0, 1.0, 15.0], scale=5.0)
        # and whether they fit: in prefixes, items, the pointer
        self.fit_gain = Gains(hidden, [1.0, 1.0, 1.0], scale=0.5)
        self.lexical_gain = Gains(hidden, [0.4])  # how far words are taken word for word
        self.pointer = Pointer(hidden, [0.0, 0.0, 1.2, 0.1])
        self.copy_gate = Gains(hidden, [2.5])
        self.affinity_gain = Gains(
            hidden, [0.5, 0.0]
        )  # of how much, and how many things, one bought under a prefix
        self.item_head = nn.Linear(hidden, config.item_dim)
        self.item_activity = Gains(hidden, [1.0] + [0.0] * (NUM_ACTIVITY_STATS - 1))
        self.neighbor = Pointer(hidden, [0.0, 0.0, 1.5, 0.0])
        self.neighbor_gain = Gains(
            hidden, [2.0, 8.0]
        )  # of the mean history vector, of items of the prefix in it
        with torch.no_grad():
            self.item_head.weight.mul_(0.1)
            self.item_head.bias.zero_()

    # ------------------------------------------------------------------------------------ inputs
    def fuse_text_only(self, focus_FT: Tensor) -> Tensor:
        """v~ (F, E) of free texts: items of which nothing but words are known. The first columns are v_text."""
        size, device = len(focus_FT), focus_FT.device
        absent = torch.zeros(size, dtype=torch.bool, device=device)
        return self.fusion(
            ItemStreams(
                focus_FT[:, : self.shape.text_dim],
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
        told = self.roles[batch.role_BL[at]]
        if self.config.item_vectors:
            told = self.item_project(items_NE[batch.item_BL[at]]) + told
        out[at] = told + self.stats_project(batch.stats_BLS[at])
        at = batch.focus_BL >= 0
        if len(batch.focus_FT):
            vectors = self.fuse_text_only(batch.focus_FT)
            out[at] = self.item_project(vectors[batch.focus_BL[at]]) + self.roles[batch.role_BL[at]]
        return out

    def read(
        self,
        batch: TensorBatch,
        items_NE: Tensor,
        lexical_VW: Tensor,
        cache: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """States (B, L, D) after the backbone, float32; fills `cache` when one is given. The backbone multiplies in `dtype`."""
        extra = {"past_key_values": cache, "use_cache": True} if cache is not None else {}
        embeds = self.embed(batch, items_NE, lexical_VW)
        with torch.autocast(embeds.device.type, dtype, enabled=dtype != torch.float32):
            result = self.backbone(
                inputs_embeds=embeds,
                attention_mask=tree_mask(batch),
                position_ids=batch.position_BL,
                **extra,
            )
        states: Tensor = result.last_hidden_state
        return states.float()

    def read_starts(
        self, batch: TensorBatch, items_NE: Tensor, lexical_VW: Tensor
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """States (R, D) at each request's <|start|> and all keys and values: `read` without what nobody looks at.

        The batch has no leaves. Needs a backbone that `decoder.is_known`.
        """
        alone = (
            int(batch.branch_BL.max()) <= 1
        )  # trunk and one branch: plain causal order, padding comes last
        return read_prompt(
            self.backbone,
            self.embed(batch, items_NE, lexical_VW),
            None if alone else tree_mask(batch),
            batch.position_BL,
            batch.request_user_R,
            batch.request_start_R,
        )

    def memory(self, batch: TensorBatch, items: ItemTensors, item_UNS: Tensor, set_B: Tensor) -> Memory:
        """The copyable history of each user; `set_B` names the set of item statistics of the user's day."""
        row, valid = batch.memory_row_BJ.clamp_min(0), batch.memory_valid_BJ
        vectors = items.vectors_NE[row]
        own = batch.memory_stats_BJS
        known = (
            self.item_project(vectors) if self.config.item_vectors else self._codes(items.prefixes_NP[row])
        )
        hidden = known + self.roles[batch.memory_role_BJ.clamp_min(0)] + self.stats_project(own)
        has_words = self.config.words and len(batch.focus_FT) > 0
        return Memory(
            hidden,
            vectors,
            items.text_NT[row] if has_words else items.text_NT[:, :0][row],
            torch.cat((own, item_UNS[set_B[:, None], row]), dim=-1),
            items.prefixes_NP[row].masked_fill(~valid[..., None], -1),
            row,
            valid,
            valid,
        )

    def _codes(self, prefix_BJP: Tensor) -> Tensor:
        """Sum (B, J, D) of the tokens of each item's prefix: what stands for an item that has no vector."""
        tokens = self.prefix_tokens()
        return torch.stack([tokens[k][prefix_BJP[..., k]] for k in range(len(tokens))]).sum(dim=0)

    # ------------------------------------------------------------------------------------- heads
    def prefix_scores(
        self,
        state_BQD: Tensor,
        memory: Memory,
        level: int,
        so_far_BQP: Tensor,
        focus: Focus | None = None,
        prefix_BKS: Tensor | None = None,
    ) -> PrefixScores:
        """P(code of `level` | state): what is generated and what is copied, in one distribution.

        `so_far_BQP` are the codes already chosen (its first `level` columns are read). Words and the prior of `prefix_BKS`
        speak at level 0, where they are known.
        """
        embeddings = self.prefix_tokens()[level]
        scale = state_BQD.shape[-1] ** -0.5
        logits = (self.prefix_head(state_BQD) @ embeddings.T) * (self.prefix_gain(state_BQD) * scale)
        logits = logits + self.prefix_bias[level]
        match_BQK = None
        if focus is not None:
            gain, fit = self.focus_gain(state_BQD) * focus.present, self.fit_gain(state_BQD)
            if level == 0:
                match_BQK = focus.match(self.prefix_match)
                logits = logits + gain[..., :1] * match_BQK + fit[..., :1] * focus.fit(match_BQK)
        if prefix_BKS is not None and level == 0 and self.config.prior:
            logits = logits + self.prefix_activity(state_BQD) @ prefix_BKS.transpose(1, 2)
        if level == 0 and self.config.affinity:
            logits = logits + self.affinity_gain(state_BQD) @ memory.bought_under(logits.shape[-1])
        if not self.config.pointer:
            nothing = logits.new_zeros(*logits.shape[:2], memory.row_BJ.shape[1])
            found = logits.log_softmax(dim=-1)
            return PrefixScores(found, nothing, found.exp())
        pointed = self.pointer.logits(state_BQD, memory)
        gate = self.copy_gate(state_BQD)
        if focus is not None:
            match_BQJ = focus.match(memory.text_BJT)
            pointed = pointed + gain[..., 2:3] * match_BQJ + fit[..., 2:] * focus.fit(match_BQJ)
            if match_BQK is not None:
                gate = gate + gain[..., 4:] * best_match(match_BQJ, match_BQK, memory)
        if level:
            path = so_far_BQP[:, :, None, :level] == memory.prefix_BJP[:, None, :, :level]
            pointed = pointed.masked_fill(~path.all(dim=-1), float("-inf"))
        weights = masked_softmax(pointed)
        copied_BQJ = torch.sigmoid(gate) * weights
        # not 1 minus what is copied: a gate that is all but shut would leave the rounding of that difference
        can_copy = ~pointed.isinf().all(dim=-1, keepdim=True)
        generated = torch.where(can_copy, torch.sigmoid(-gate), 1.0) * logits.softmax(dim=-1)
        return PrefixScores.of(generated, copied_BQJ, memory.prefix_BJP, level)

    def item_scores(
        self, state_BQD: Tensor, memory: Memory, prefix_BQP: Tensor, focus: Focus | None = None
    ) -> ItemScores:
        """What ranks the items of a prefix at <q>: h to be compared with v~ by cosine, and the weights of the priors."""
        out = self.item_head(state_BQD)
        if self.config.pointer:
            gain = self.neighbor_gain(state_BQD)
            same = (memory.prefix_BJP[:, None] == prefix_BQP[:, :, None]).all(dim=-1)
            weights = masked_softmax(self.neighbor.logits(state_BQD, memory) + gain[..., 1:] * same)
            out = out + gain[..., :1] * (weights @ memory.vector_BJE)
        about = fit = state_BQD.new_zeros(state_BQD.shape[:2])
        if focus is not None:
            strength = self.focus_gain(state_BQD) * focus.present
            out = out + strength[..., 3:4] * focus.item_BQE
            about = strength[..., 1]
            fit = (self.fit_gain(state_BQD) * focus.present)[..., 1]
        activity = self.item_activity(state_BQD)
        return ItemScores(
            nn.functional.normalize(out, dim=-1) if self.config.item_vectors else torch.zeros_like(out),
            about,
            fit,
            activity if self.config.prior else torch.zeros_like(activity),
        )

    def focus(self, batch: TensorBatch, index_XV: Tensor, slots: Slots, start_XD: Tensor) -> Focus | None:
        """What each request is about, padded like `slots`; none when no request of the batch has words.

        `start_XD` are the requests' states at <|start|>, which say how far the words are meant word for word: a category is, a
        craving is not.
        """
        if not len(batch.focus_FT) or not self.config.words:
            return None
        width = self.shape.text_dim
        literal_X1 = self.lexical_gain(start_XD)[:, :, None]
        at, valid = index_XV.clamp_min(0), index_XV >= 0
        text_XVT = batch.focus_FT[at]
        vectors = (self.fuse_text_only(batch.focus_FT)[at] * valid[..., None]).sum(dim=1)
        text_XVT = torch.cat((text_XVT[..., :width], text_XVT[..., width:] * literal_X1), dim=-1)
        match = (text_XVT.detach() @ self.prefix_match.T).masked_fill(~valid[..., None], -2.0).amax(dim=1)
        return Focus(
            slots.pad(text_XVT),
            slots.pad(valid),
            slots.pad(nn.functional.normalize(vectors, dim=-1)),
            slots.pad(match_range(match)),
        )


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
        item_keys(features.item_ids).to(device),
    )


def item_keys(item_ids: "Sequence[str]") -> Tensor:
    """A number (N,) for each item id, int64; equal on every machine."""
    digests = (hashlib.blake2b(item.encode(), digest_size=8).digest() for item in item_ids)
    return torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests], dtype=torch.long)
