"""The mini backbone for answering alone: the modules that `decoder.py` computes with, under the names of transformers' Qwen3.

A command that answers opens the model each time, and importing transformers for it costs more than many an answer. Training
takes the transformers model (`backbone.build_backbone`); weights are the same ones. Our choice.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

if TYPE_CHECKING:
    from sigma_core.config import ModelConfig

ROPE_THETA: Final = 10_000.0  # as Qwen3Config has it where none is given
NORM_EPS: Final = 1e-6


class PlainDecoder(nn.Module):
    """Weights and settings of `build_backbone` of a mini model. It has no forward: `decoder.py` reads its parts."""

    def __init__(self, config: "ModelConfig") -> None:
        super().__init__()
        width = config.hidden_dim // config.num_heads
        self.config = SimpleNamespace(
            hidden_size=config.hidden_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            head_dim=width,
        )
        self.embed_tokens = nn.Embedding(1, config.hidden_dim)  # words and items arrive as vectors
        self.layers = nn.ModuleList(
            PlainDecoderLayer(config.hidden_dim, config.num_heads) for _ in range(config.num_layers)
        )
        self.norm = PlainNorm(config.hidden_dim)
        self.rotary_emb = PlainRotary(width)


class PlainDecoderLayer(nn.Module):
    """Norm, attention, norm, gated MLP."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.self_attn = PlainAttention(hidden, heads)
        self.mlp = PlainMlp(hidden, 2 * hidden)
        self.input_layernorm = PlainNorm(hidden)
        self.post_attention_layernorm = PlainNorm(hidden)


class PlainAttention(nn.Module):
    """Projections and the norms of queries and keys; a key head for each head."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.head_dim, self.num_key_value_groups = hidden // heads, 1
        self.scaling = self.head_dim**-0.5
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(hidden, hidden, bias=False))
        self.q_norm, self.k_norm = PlainNorm(self.head_dim), PlainNorm(self.head_dim)


class PlainMlp(nn.Module):
    """The gated MLP."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) of (..., D)."""
        out: Tensor = self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class PlainNorm(nn.Module):
    """The weight of a root-mean-square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = NORM_EPS


class PlainRotary(nn.Module):
    """Rotary positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        places = torch.arange(0, width, 2, dtype=torch.float)
        self.register_buffer("inv_freq", 1.0 / (ROPE_THETA ** (places / width)), persistent=False)

    def forward(self, like: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (..., W) of `position` (...), in the type of `like`; the second half repeats the first."""
        angle = position[..., None].float() * self.get_buffer("inv_freq")
        both = torch.cat((angle, angle), dim=-1)
        return both.cos().to(like.dtype), both.sin().to(like.dtype)
