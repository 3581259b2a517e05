"""A pre-trained text model taken apart: embeddings, layers, pooling. Its lower layers can then be run once and kept.

Three kinds: BERT (mean pooling), decoder LLMs such as Qwen3, Llama and SmolLM2 (last-token pooling, as in the paper), and any
other transformers model, which is only run whole. Nothing trained here, no files. Source: paper, grounding (decoder LLM,
last-token pooling); mean pooling for encoders is what they were trained with.
"""

# Shape legend: R rows of a batch, T pad length, H hidden width.

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sigma_core.grounding.text_backbone import BackboneError, mean_pool, run_layers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Pooling = Literal["mean", "last"]


class TextNetwork(ABC):
    """What encoding and training need of a text model.

    Attributes:
        model: the transformers model.
        pooling: how a row's states become one vector.
        layers: the layers that can be run one by one; LoRA goes to the last of them.
        layers_pattern: the name of their list, for peft; none where the model runs whole.
    """

    layers_pattern: ClassVar[str | None] = None
    natural_pooling: ClassVar[Pooling] = "mean"

    def __init__(self, model: Any, pooling: Pooling | None = None) -> None:
        self.model = model
        self.pooling: Pooling = pooling or self.natural_pooling
        self.layers: list[Module] = self._layers()

    @property
    def width(self) -> int:
        """H, the width of a pooled vector."""
        return int(self.model.config.hidden_size)

    @abstractmethod
    def embed(self, ids_RT: "Tensor") -> "Tensor":
        """What the first layer reads."""

    @abstractmethod
    def run(self, layers: Sequence["Module"], states: "Tensor", mask_RT: "Tensor") -> "Tensor":
        """States after `layers`, a run of `self.layers`."""

    def pool(self, states_RTH: "Tensor", mask_RT: "Tensor") -> "Tensor":
        """[R, H] unit rows from the states after the last layer."""
        return mean_pool(states_RTH, mask_RT) if self.pooling == "mean" else last_pool(states_RTH, mask_RT)

    @abstractmethod
    def _layers(self) -> list["Module"]:
        """The layers that can be run one by one."""


class BertNetwork(TextNetwork):
    """BERT: absolute positions, every token sees every token. Texts are padded on the right."""

    layers_pattern = "layer"

    def embed(self, ids_RT: "Tensor") -> "Tensor":
        """[R, T, H] embeddings."""
        return self.model.embeddings(input_ids=ids_RT)

    def run(self, layers: Sequence["Module"], states: "Tensor", mask_RT: "Tensor") -> "Tensor":
        """[R, T, H] after `layers`."""
        return run_layers(layers, states, mask_RT)

    def _layers(self) -> list["Module"]:
        return list(self.model.encoder.layer)


class DecoderNetwork(TextNetwork):
    """A decoder with rotary positions: a token sees earlier ones; positions count a row's own tokens, so that padding on
    either side gives the same vectors.
    """

    layers_pattern = "layers"
    natural_pooling = "last"

    def embed(self, ids_RT: "Tensor") -> "Tensor":
        """[R, T, H] embeddings."""
        return self.model.embed_tokens(ids_RT)

    def run(self, layers: Sequence["Module"], states: "Tensor", mask_RT: "Tensor") -> "Tensor":
        """[R, T, H] after `layers`, before the final norm."""
        import torch

        size, device = mask_RT.shape[1], mask_RT.device
        positions_RT = (mask_RT.long().cumsum(dim=1) - 1).clamp_min(0)
        rotary = self.model.rotary_emb(states, positions_RT)
        earlier_TT = torch.ones(size, size, dtype=torch.bool, device=device).tril()
        own_TT = torch.eye(
            size, dtype=torch.bool, device=device
        )  # padding sees itself: no softmax over nothing
        visible_RTT = (earlier_TT & mask_RT[:, None, :]) | own_TT
        hidden = torch.zeros(visible_RTT.shape, dtype=states.dtype, device=device)
        mask_R1TT = hidden.masked_fill_(~visible_RTT, torch.finfo(states.dtype).min)[:, None]
        for layer in layers:
            states = layer(
                states, attention_mask=mask_R1TT, position_ids=positions_RT, position_embeddings=rotary
            )
        return states

    def pool(self, states_RTH: "Tensor", mask_RT: "Tensor") -> "Tensor":
        """[R, H] unit rows, through the model's final norm."""
        return super().pool(self.model.norm(states_RTH), mask_RT)

    def _layers(self) -> list["Module"]:
        return list(self.model.layers)


class WholeNetwork(TextNetwork):
    """Any other model: run whole, so nothing is kept between steps and LoRA goes to every layer. Right padding only."""

    def embed(self, ids_RT: "Tensor") -> "Tensor":
        """The token ids themselves, [R, T]."""
        return ids_RT

    def run(self, layers: Sequence["Module"], states: "Tensor", mask_RT: "Tensor") -> "Tensor":
        """[R, T, H] after the model; the ids again where `layers` is empty."""
        if not layers:
            return states
        return self.model(input_ids=states, attention_mask=mask_RT.long()).last_hidden_state

    def _layers(self) -> list["Module"]:
        return [self.model]


def network_of(model: Any, pooling: str = "auto", padding_side: str = "right") -> TextNetwork:
    """The network of a loaded transformers model; `pooling` auto is last-token for decoders, else mean.

    Raises:
        BackboneError: left padding for a model that is not a rotary decoder.
    """
    chosen: Pooling | None = {"mean": "mean", "last": "last"}.get(pooling)  # type: ignore[assignment]
    kind = _kind(model)
    if padding_side == "left" and kind is not DecoderNetwork:
        raise BackboneError(
            f"grounding.padding_side=left needs a decoder with rotary positions, arrived a {model.config.model_type!r} model. "
            "Set grounding.padding_side=right."
        )
    return kind(model, chosen)


def last_pool(states_RTH: "Tensor", mask_RT: "Tensor") -> "Tensor":
    """[R, H] unit rows: the state of a row's last own token, wherever the padding stands."""
    import torch
    from torch.nn import functional

    last_R = mask_RT.shape[1] - 1 - mask_RT.flip(1).int().argmax(dim=1)
    rows_R = torch.arange(len(last_R), device=last_R.device)
    return functional.normalize(states_RTH[rows_R, last_R], dim=1)


def _kind(model: Any) -> type[TextNetwork]:
    if model.config.model_type == "bert":
        return BertNetwork
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
    windowed = set(kinds) != {"full_attention"} or getattr(model.config, "sliding_window", None)
    parts = dict(model.named_children())
    if {"embed_tokens", "layers", "norm", "rotary_emb"} <= set(parts) and not windowed:
        return DecoderNetwork
    return WholeNetwork
