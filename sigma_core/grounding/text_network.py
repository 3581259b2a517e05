"""A pre-trained text model taken apart: embeddings, layers, pooling. Its lower layers can then be run once and kept.

Three kinds: BERT; decoder LLMs such as Qwen3, Llama and SmolLM2, run layer by layer; and any other transformers model, which
is only run whole. Which kind a model is, whether a token of it sees later ones and whether it may be padded on the left is
found by running a few tokens, not by its name. Nothing trained here, no files. Source: paper, grounding (decoder LLM,
last-token pooling); mean pooling for encoders is what they were trained with.
"""

# Shape legend: R rows of a batch, T pad length, H hidden width.

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from sigma_core.grounding.text_backbone import BackboneError, mean_pool, run_layers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Pooling = Literal["mean", "last", "cls"]

_CLOSE: Final = (
    1e-3  # of the largest state: far above what rounding differs by, far below another model's states
)
_SAME: Final = 1e-5  # likewise, where the same kernel reads the same tokens
_PROBE_ERRORS: Final = (
    TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError,
)  # fmt: skip


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
        pool = {"mean": mean_pool, "last": last_pool, "cls": first_pool}[self.pooling]
        return pool(states_RTH, mask_RT)

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
        positions_RT = own_positions(mask_RT)
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
    """Any other model: run whole, so nothing is kept between steps and LoRA goes to every layer.

    Attributes:
        is_causal: whether no token sees a later one; then the last token is pooled, and positions count a row's own tokens.
    """

    def __init__(self, model: Any, pooling: Pooling | None = None) -> None:
        self.is_causal = _is_causal(model)
        takes = inspect.signature(model.forward).parameters
        self._has_positions = self.is_causal and "position_ids" in takes
        super().__init__(model, pooling or ("last" if self.is_causal else "mean"))

    def embed(self, ids_RT: "Tensor") -> "Tensor":
        """The token ids themselves, [R, T]."""
        return ids_RT

    def run(self, layers: Sequence["Module"], states: "Tensor", mask_RT: "Tensor") -> "Tensor":
        """[R, T, H] after the model; the ids again where `layers` is empty."""
        if not layers:
            return states
        positions = {"position_ids": own_positions(mask_RT)} if self._has_positions else {}
        return self.model(input_ids=states, attention_mask=mask_RT.long(), **positions).last_hidden_state

    def _layers(self) -> list["Module"]:
        return [self.model]


def network_of(model: Any, pooling: str = "auto", padding_side: str = "right") -> TextNetwork:
    """The network of a loaded transformers model, in evaluation mode; `pooling` auto is last-token where no token sees a later
    one, else mean. A model that is no BERT is run over a few tokens to find out.

    Raises:
        BackboneError: it does not read texts, or left padding for a model whose vectors it would change.
    """
    chosen: Pooling | None = None if pooling == "auto" else pooling  # type: ignore[assignment]
    try:
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError("it is an encoder-decoder")
        network = _kind(model)(model, chosen)
    except _PROBE_ERRORS as error:
        raise BackboneError(
            f"a {model.config.model_type!r} model does not read token ids alone: {error}. Needed an encoder (MiniLM, bge, e5, "
            "ModernBERT) or a decoder (Qwen3, Llama)."
        ) from error
    if padding_side == "left" and not _reads_left(network):
        raise BackboneError(
            "grounding.padding_side=left needs a decoder that gives the same vectors padded left and right, arrived a "
            f"{model.config.model_type!r} model that does not. Set grounding.padding_side=right."
        )
    return network


def own_positions(mask_RT: "Tensor") -> "Tensor":
    """int64 [R, T]: how many own tokens of its row stand before a token; 0 where padding stands before them all."""
    return (mask_RT.long().cumsum(dim=1) - 1).clamp_min(0)


def last_pool(states_RTH: "Tensor", mask_RT: "Tensor") -> "Tensor":
    """[R, H] unit rows: the state of a row's last own token, wherever the padding stands."""
    import torch
    from torch.nn import functional

    last_R = mask_RT.shape[1] - 1 - mask_RT.flip(1).int().argmax(dim=1)
    rows_R = torch.arange(len(last_R), device=last_R.device)
    return functional.normalize(states_RTH[rows_R, last_R], dim=1)


def first_pool(states_RTH: "Tensor", mask_RT: "Tensor") -> "Tensor":
    """[R, H] unit rows: the state of a row's first own token ([CLS]), wherever the padding stands."""
    import torch
    from torch.nn import functional

    first_R = mask_RT.int().argmax(dim=1)
    rows_R = torch.arange(len(first_R), device=first_R.device)
    return functional.normalize(states_RTH[rows_R, first_R], dim=1)


def _kind(model: Any) -> type[TextNetwork]:
    if model.config.model_type == "bert":
        return BertNetwork
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
    windowed = set(kinds) != {"full_attention"} or getattr(model.config, "sliding_window", None)
    parts = dict(model.named_children())
    if {"embed_tokens", "layers", "norm", "rotary_emb"} <= set(parts) and not windowed:
        return DecoderNetwork if _runs_by_layers(model) else WholeNetwork
    return WholeNetwork


def _runs_by_layers(model: Any) -> bool:
    """Whether the model's layers one by one give what it gives itself: some scale embeddings, or call layers otherwise."""
    import torch

    network, ids_RT = DecoderNetwork(model), _some_ids(model)
    mask_RT = torch.ones_like(ids_RT, dtype=torch.bool)
    with torch.inference_mode():
        whole = model(input_ids=ids_RT).last_hidden_state
        try:
            mine = model.norm(network.run(network.layers, network.embed(ids_RT), mask_RT))
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError):
            return False
    return _is_near(mine, whole, _CLOSE)


def _is_causal(model: Any) -> bool:
    """Whether earlier states stay when the last token becomes another."""
    import torch

    ids_RT = _some_ids(model)
    with torch.inference_mode():
        first, other = model(input_ids=ids_RT).last_hidden_state[:, :-1]
    return _is_near(first, other, _SAME)


def _reads_left(network: TextNetwork) -> bool:
    """Whether a short row padded on the left gets the vector it gets padded on the right."""
    import torch

    if isinstance(network, BertNetwork):
        return False
    ids_RT = _some_ids(network.model)[:1]
    ids_R2T = torch.cat((ids_RT, torch.zeros_like(ids_RT)), dim=1)
    right_RT = torch.arange(ids_R2T.shape[1], device=ids_RT.device)[None] < ids_RT.shape[1]

    def vector(ids: "Tensor", mask: "Tensor") -> "Tensor":
        return network.pool(network.run(network.layers, network.embed(ids), mask), mask)

    with torch.inference_mode():
        left = vector(ids_R2T.roll(ids_RT.shape[1], 1), right_RT.flip(1))
        return _is_near(left, vector(ids_R2T, right_RT), _CLOSE)


def _some_ids(model: Any) -> "Tensor":
    """[2, 4] token ids; the rows differ in the last alone."""
    import torch

    table = model.get_input_embeddings().weight
    ids_RT = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=table.device)
    return ids_RT % len(table)


def _is_near(found: "Tensor", wanted: "Tensor", share: float) -> bool:
    """Whether no value differs by more than a share of the largest; False where one is not finite."""
    return bool((found - wanted).abs().max() <= share * wanted.abs().max())
