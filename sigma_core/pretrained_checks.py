"""What a pre-trained model must be for the two places that take one, asked of its files before any work: no weights are read.

Holds the questions and what a refusal says; finding and opening are `pretrained.py`. The grounding encoder takes any text
encoder or decoder; the backbone that recommends must read token trees. Our choice.
"""

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from sigma_core.pretrained import Pretrained, PretrainedError, find_pretrained

if TYPE_CHECKING:
    from torch.nn import Module

    from sigma_core.config import GroundingConfig, ModelConfig

LORA_TARGETS: Final = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def check_text_model(config: "GroundingConfig") -> None:
    """Nothing happens where `grounding.backbone` is a text model and the other settings of grounding fit it.

    Raises:
        PretrainedError: it is not here, or no text model (an encoder-decoder, pictures), or its tokenizer is another model's.
        ValueError: `text_dim`, `lora_layers`, `lora_targets` or `pad_buckets` ask for what it does not have.
    """
    found = find_pretrained(config.backbone)
    shape = found.config()
    if getattr(shape, "is_encoder_decoder", False):
        raise PretrainedError(
            f"grounding.backbone={config.backbone!r} is an encoder-decoder ({shape.model_type}); needed an encoder (MiniLM, "
            "bge, e5, ModernBERT) or a decoder (Qwen3, Llama)."
        )
    if not hasattr(shape, "hidden_size") or not hasattr(shape, "vocab_size"):
        raise PretrainedError(
            f"grounding.backbone={config.backbone!r} is no text model ({shape.model_type}); needed an encoder (MiniLM, bge, e5, "
            "ModernBERT) or a decoder (Qwen3, Llama)."
        )
    check_tokenizer(found)
    check_width(config.text_dim, shape.hidden_size)
    network = found.skeleton()
    check_length(network, config)
    layers = layers_of(network)
    if layers:
        check_depth(config.lora_layers, len(layers))
    check_targets(layers[-config.lora_layers :] or [network], config.lora_targets)


def check_backbone(config: "ModelConfig") -> None:
    """Nothing happens where `model.backbone` (not mini) is a decoder that reads token trees and takes LoRA.

    Raises:
        PretrainedError: it is not here, or of another kind; the message says which are read.
    """
    found = find_pretrained(config.backbone)
    check_reads_trees(config.backbone, found.config())
    network = found.skeleton()
    if "past_key_values" not in inspect.signature(network.forward).parameters:
        raise PretrainedError(tree_refusal(config.backbone, "it keeps no keys and values between calls"))
    check_takes_lora(config.backbone, network)
    check_tokenizer(found)


def check_takes_lora(name: str, network: "Module") -> None:
    """Nothing happens where the backbone has all layers that LoRA goes to.

    Raises:
        PretrainedError: it lacks some.
    """
    names = {module.rsplit(".", 1)[-1] for module, _ in network.named_modules()}
    if missing := sorted(set(LORA_TARGETS) - names):
        raise PretrainedError(
            f"model.backbone={name!r} has no layers named {missing}; LoRA goes to {list(LORA_TARGETS)}, the names of Llama, "
            "SmolLM2, Qwen2, Qwen3, Mistral and Gemma. Choose a backbone of these families."
        )


def check_reads_trees(name: str, shape: Any) -> None:
    """Nothing happens where the configuration `shape` is that of a decoder that can read token trees.

    Raises:
        PretrainedError: it is not; the message says why.
    """
    if getattr(shape, "is_encoder_decoder", False):
        raise PretrainedError(tree_refusal(name, "it is an encoder-decoder"))
    if hasattr(shape, "text_config"):
        raise PretrainedError(tree_refusal(name, f"it is a {shape.model_type}, which reads more than text"))
    if not getattr(shape, "rope_parameters", None) and not getattr(shape, "rope_theta", None):
        raise PretrainedError(tree_refusal(name, "its positions are not rotary"))
    kinds = getattr(shape, "layer_types", None)
    kinds = kinds or (["sliding_attention"] if getattr(shape, "sliding_window", None) else ["full_attention"])
    if set(kinds) != {"full_attention"}:
        raise PretrainedError(tree_refusal(name, f"its layers are {sorted(set(kinds))}"))


def tree_refusal(name: str, why: str) -> str:
    """What is said of a backbone that cannot read token trees."""
    return (
        f"model.backbone={name!r} cannot read token trees: {why}. Needed a decoder with rotary positions and full attention in "
        "every layer, such as SmolLM2, Llama or Qwen3."
    )


def check_tokenizer(found: Pretrained) -> None:
    """Nothing happens where the model has an embedding for every token that a text can become.

    Raises:
        PretrainedError: it has no tokenizer, or one with more tokens.
    """
    tokenizer = found.tokenizer()
    ids = list(tokenizer.get_vocab(with_added_tokens=False).values())
    ids += [number for number, token in tokenizer.get_added_tokens_decoder().items() if not token.special]
    most = max((*ids, *tokenizer.encode("a").ids))
    try:
        rows = len(found.skeleton().get_input_embeddings().weight)
    except (NotImplementedError, AttributeError) as error:
        raise PretrainedError(
            f"{found.name!r} in {found.folder} has no embeddings of words: no text model."
        ) from error
    if most >= rows:
        raise PretrainedError(
            f"the tokenizer of {found.name!r} in {found.folder} gives token {most}, the model has embeddings of {rows}: it is "
            "another model's. Put the model's own tokenizer.json there."
        )


def check_width(text_dim: int, width: int) -> None:
    """Nothing happens where `text_dim` is at most `width`.

    Raises:
        ValueError: it is above.
    """
    if text_dim > width:
        raise ValueError(f"grounding.text_dim is {text_dim}, the backbone's width only {width}.")


def check_depth(lora_layers: int, depth: int) -> None:
    """Nothing happens where LoRA goes to at most as many layers as there are.

    Raises:
        ValueError: to more.
    """
    if lora_layers > depth:
        raise ValueError(f"grounding.lora_layers is {lora_layers}, the backbone has {depth} layers.")


def check_length(network: Any, config: "GroundingConfig") -> None:
    """Nothing happens where the model has positions for the longest of `grounding.pad_buckets`.

    Raises:
        ValueError: it has fewer.
    """
    if max(config.pad_buckets) > (most := longest_text(network)):
        raise ValueError(
            f"grounding.pad_buckets reaches to {max(config.pad_buckets)} tokens, {config.backbone!r} reads at most {most}."
        )


def longest_text(network: Any) -> int:
    """Most tokens the model has positions for; a very large number where its configuration names none."""
    from torch.nn import Embedding

    most = getattr(network.config, "max_position_embeddings", None) or 1 << 30
    for name, module in network.named_modules():
        if (
            name.endswith("position_embeddings")
            and isinstance(module, Embedding)
            and module.padding_idx is not None
        ):
            most -= module.padding_idx + 1  # RoBERTa and its kin count from there
    return int(most)


def layers_of(network: Any) -> "list[Module]":
    """The layers of a BERT or of a decoder, lowest first; empty where they are called otherwise."""
    found = getattr(getattr(network, "encoder", network), "layer", None) or getattr(network, "layers", None)
    return list(found or ())


def check_targets(layers: "Iterable[Module]", targets: Iterable[str]) -> None:
    """Nothing happens where each of `targets` names a linear layer in `layers`.

    Raises:
        ValueError: one does not; the message lists those there are.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    names = {
        name.rsplit(".", 1)[-1]
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, Linear | Conv1D)
    }
    if missing := sorted(set(targets) - names):
        raise ValueError(
            f"grounding.lora_targets names {missing}, which the backbone's layers do not have; their linear layers are "
            f"{sorted(names)}. Set grounding.lora_targets to some of these."
        )
