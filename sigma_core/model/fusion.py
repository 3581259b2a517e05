"""ProjectAndFuse: frozen item streams in, one unique item vector v~ out.

Holds the trained fusion and nothing else: no free parameter per item, so an item launched a minute ago gets its vector
from its text alone. Source: paper, hybrid tokenization, v~ = ProjectAndFuse(v_ID, v_text, v_img); gates, presence flags
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

    def rows(self, index: Tensor) -> "ItemStreams":
        """The same streams for the given rows."""
        return ItemStreams(*(stream[index] for stream in self))


class FusionTrace(NamedTuple):
    """What the fusion did, for a figure of a real item."""

    gates_N3: Tensor  # share of text, id, image; rows sum to one, absent streams are 0
    fused_NE: Tensor  # unit rows


class ProjectAndFuse(nn.Module):
    """Maps item streams to unit vectors v~ (N, E).

    Each present stream is projected, a gate over the present streams weighs them, presence flags enter as vectors, and
    an MLP beside a linear path gives v~. Text is always present.
    """

    def __init__(
        self, text_dim: int, id_dim: int, image_dim: int, hidden: int, item_dim: int, drop: float
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
        )

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
        return FusionTrace(gates, nn.functional.normalize(fused, dim=-1))

    def forward(self, streams: ItemStreams) -> Tensor:
        """Unit vectors v~ (N, E)."""
        return self.trace(streams).fused_NE
