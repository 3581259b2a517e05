"""ProjectAndFuse: frozen item streams in, one unique item vector v~ out.

Holds the trained fusion and nothing else: no free parameter per item (but in an ablation), so an item launched a minute
ago gets its vector from its text alone. Source: paper, hybrid tokenization, v~ = ProjectAndFuse(v_ID, v_text, v_img); gates, presence flags
and modality dropout are our choice (paper silent).

Shape legend: N items, T text width, I id width, V image width, H hidden, E item width.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sigma_core.config import ModelConfig
    from sigma_core.model.sigma import ModelShape

ID_GAIN = 4.0


class ItemStreams(NamedTuple):
    """Frozen inputs of the fusion. A stream that is absent has flag False and any finite values."""

    text_NT: Tensor
    id_NI: Tensor
    has_id_N: Tensor  # bool
    image_NV: Tensor  # V may be 0: no image stream at all
    has_image_N: Tensor  # bool
    key_N: Tensor | None = None  # int64, of the item's id: what a free part is found by

    def rows(self, index: Tensor) -> "ItemStreams":
        """The same streams for the given rows."""
        return ItemStreams(
            self.text_NT[index],
            self.id_NI[index],
            self.has_id_N[index],
            self.image_NV[index],
            self.has_image_N[index],
            None if self.key_N is None else self.key_N[index],
        )


class FusionTrace(NamedTuple):
    """What the fusion did, for a figure of a real item."""

    gates_N3: Tensor  # share of text, id, image; rows sum to one, absent streams are 0
    fused_NE: Tensor  # unit rows


class ProjectAndFuse(nn.Module):
    """Maps item streams to unit vectors v~ (N, E).

    Each present stream is projected, a gate over the present streams weighs them, presence flags enter as vectors, and
    an MLP beside a linear path gives v~. Text is always present. With `num_free` (an ablation) so many items have a free
    part too, zero before training; an item that is not among them has none.
    """

    free_keys: Tensor  # (F,), sorted

    def __init__(
        self,
        text_dim: int,
        id_dim: int,
        image_dim: int,
        hidden: int,
        item_dim: int,
        drop: float,
        num_free: int = 0,
    ) -> None:
        super().__init__()
        self.drop = drop
        self.project_text = nn.Linear(text_dim, hidden)
        self.project_id = nn.Linear(id_dim, hidden)
        self.project_image = nn.Linear(image_dim, hidden) if image_dim else None
        self.presence = nn.Parameter(torch.zeros(2, 2, hidden))  # (id | image, absent | present, H)
        self.gates = nn.ModuleList(nn.Linear(width, 1) for width in (text_dim, id_dim, max(image_dim, 1)))
        last = nn.Linear(hidden, item_dim)
        self.mlp = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), last)
        self.skip = nn.Linear(hidden, item_dim)
        self.free = nn.Parameter(torch.zeros(num_free, item_dim)) if num_free else None
        if num_free:
            self.register_buffer("free_keys", torch.zeros(num_free, dtype=torch.long))
        with torch.no_grad():  # begin with a mostly linear map in which v_ID tells apart what one text shares
            last.weight.mul_(0.3)
            self.project_id.weight.mul_(ID_GAIN)

    @classmethod
    def of(cls, config: "ModelConfig", shape: "ModelShape") -> "ProjectAndFuse":
        """The fusion of a model with these settings and sizes."""
        return cls(
            shape.text_dim,
            shape.id_dim,
            shape.image_dim,
            config.fusion_hidden,
            config.item_dim,
            config.modality_dropout,
            shape.free_items,
        )

    def set_free_items(self, key_F: Tensor) -> None:
        """Say which items have a free part; does nothing when none has.

        Raises:
            ValueError: their number is not that of the free parts.
        """
        if self.free is None:
            return
        if len(key_F) != len(self.free):
            raise ValueError(f"{len(key_F)} items arrived for {len(self.free)} free parts.")
        self.free_keys.copy_(key_F.sort().values)

    def _free_part(self, free_FE: Tensor, key_N: Tensor) -> Tensor:
        """(N, E); zero for unknown items, and in training for a share `drop`, as if they were new."""
        at = torch.searchsorted(self.free_keys, key_N).clamp_max(len(self.free_keys) - 1)
        known = self.free_keys[at] == key_N
        if self.training and self.drop > 0:
            known = known & (torch.rand(known.shape, device=known.device) >= self.drop)
        return free_FE[at] * known[:, None]

    def trace(self, streams: ItemStreams) -> FusionTrace:
        """Gates and fused vectors. In training mode v_ID and v_img are each hidden with probability `drop`."""
        has_id, has_image = streams.has_id_N, streams.has_image_N
        if self.training and self.drop > 0:
            keep = torch.rand(2, has_id.shape[0], device=has_id.device) >= self.drop
            has_id, has_image = has_id & keep[0], has_image & keep[1]
        parts = [self.project_text(streams.text_NT), self.project_id(streams.id_NI)]
        logits = [self.gates[0](streams.text_NT), self.gates[1](streams.id_NI)]
        present = [torch.ones_like(has_id), has_id, has_image]
        if self.project_image is not None:
            parts.append(self.project_image(streams.image_NV))
            logits.append(self.gates[2](streams.image_NV))
        else:
            logits.append(torch.zeros_like(logits[0]))
            present[2] = torch.zeros_like(has_id)
        closed = ~torch.stack(present, dim=1)
        gates = torch.cat(logits, dim=1).masked_fill(closed, float("-inf")).softmax(dim=1)  # (N, 3)
        mixed = self.presence[0][has_id.long()] + self.presence[1][present[2].long()]
        for number, part in enumerate(parts):
            mixed = torch.addcmul(mixed, gates[:, number : number + 1], part)
        fused = self.skip(mixed) + self.mlp(mixed)
        if self.free is not None and streams.key_N is not None:
            fused = fused + self._free_part(self.free, streams.key_N)
        return FusionTrace(gates, nn.functional.normalize(fused, dim=-1))

    def forward(self, streams: ItemStreams) -> Tensor:
        """Unit vectors v~ (N, E)."""
        return self.trace(streams).fused_NE
