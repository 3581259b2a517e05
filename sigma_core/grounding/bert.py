"""BERT for reading alone: the modules an encoder runs, under the names and with the numbers of transformers.

An encoder that was trained is opened in every command, and importing transformers costs more than encoding a catalog update.
Training takes the transformers model (`text_backbone.load_model`). What this cannot run is refused by `can_read`, and read
there too. Each call is the one transformers makes, so rows are equal bit by bit. Our choice.
"""

# Shape legend: R rows of a batch, T pad length, H hidden width.

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

_PLAIN: Final[dict[str, Any]] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
}


class BertSettings:
    """What was in `config.json`, unchanged; what readers ask for as attributes."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self.model_type = str(values["model_type"])
        self.hidden_size = int(values["hidden_size"])

    def to_dict(self) -> dict[str, Any]:
        """The values, as they were read."""
        return dict(self._values)


def can_read(values: Mapping[str, Any]) -> bool:
    """Whether `config.json` describes a BERT that this module runs as transformers does."""
    needed = ("layer_norm_eps", "max_position_embeddings", "type_vocab_size", "num_hidden_layers")
    return all(name in values for name in needed) and all(
        values.get(name, plain) == plain for name, plain in _PLAIN.items()
    )


class PlainBert(nn.Module):
    """Embeddings and layers; no forward of the whole, as layers are run one by one.

    Raises:
        RuntimeError: the weights do not fit the settings.
    """

    def __init__(self, values: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = BertSettings(values)
        with torch.device("meta"):  # the weights are about to be given
            self.embeddings = _Embeddings(values)
            self.encoder = nn.Module()
            self.encoder.layer = nn.ModuleList(_Layer(values) for _ in range(values["num_hidden_layers"]))
            if "pooler.dense.weight" in state:  # read by nobody, and part of the artifact
                self.pooler = nn.Module()
                self.pooler.dense = nn.Linear(values["hidden_size"], values["hidden_size"])
        own = {name: t.float().clone() for name, t in state.items() if not name.endswith("position_ids")}
        self.load_state_dict(own, assign=True)
        self.eval().requires_grad_(False)


class _Embeddings(nn.Module):
    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        width = values["hidden_size"]
        self.word_embeddings = _table(values["vocab_size"], width)
        self.position_embeddings = _table(values["max_position_embeddings"], width)
        self.token_type_embeddings = _table(values["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=values["layer_norm_eps"])

    def forward(self, input_ids: Tensor) -> Tensor:
        """[R, T, H] of ids [R, T], all of the first type."""
        place_1T = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        states = self.word_embeddings(input_ids) + self.token_type_embeddings(torch.zeros_like(input_ids))
        normed: Tensor = self.LayerNorm(states + self.position_embeddings(place_1T))
        return normed


def _table(size: int, width: int) -> nn.Embedding:
    """An embedding without drawn weights: drawing them on the meta device imports torch's compiler."""
    return nn.Embedding.from_pretrained(torch.empty(size, width))


class _Layer(nn.Module):
    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner, eps = values["hidden_size"], values["intermediate_size"], values["layer_norm_eps"]
        self.heads = int(values["num_attention_heads"])
        self.attention = _Attention(width, eps)
        self.intermediate = _Intermediate(width, inner)
        self.output = _Onward(inner, width, eps)

    def forward(self, states_RTH: Tensor, mask: Tensor) -> Tensor:
        """[R, T, H] after the layer; `mask`, bool, says which tokens are seen."""
        own, rows = self.attention.self, (*states_RTH.shape[:2], self.heads, -1)
        query, key, value = (
            part(states_RTH).view(rows).transpose(1, 2) for part in (own.query, own.key, own.value)
        )
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen = self.attention.output(mixed.transpose(1, 2).contiguous().view(states_RTH.shape), states_RTH)
        after: Tensor = self.output(gelu(self.intermediate.dense(seen)), seen)
        return after


class _Attention(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.self = _Projections(width)
        self.output = _Onward(width, width, eps)


class _Projections(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))


class _Intermediate(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)


class _Onward(nn.Module):
    """A linear layer back to the hidden width, what came in added, normalised."""

    def __init__(self, inner: int, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, inside: Tensor, before_RTH: Tensor) -> Tensor:
        """[R, T, H]."""
        normed: Tensor = self.LayerNorm(self.dense(inside) + before_RTH)
        return normed
