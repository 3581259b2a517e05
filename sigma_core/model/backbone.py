"""Backbones: the decoder LLM that reads the prompt, by name, and the words it can read.

Holds the mini backbone's shape and the loading of real ones; nothing of items, prefixes or tasks. The mini backbone is
a small Qwen3-shaped decoder trained here; its words are the grounded encoder's lexical embeddings, frozen, so that
words keep their meaning (our choice; the paper uses Qwen3 at full size).
"""

from typing import TYPE_CHECKING

from sigma_core.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KNOWN = ("mini", "smollm2-135m", "qwen3-0.6b", "qwen3-4b")


class BackboneError(RuntimeError):
    """The backbone cannot be had here; the message says how to get it."""


def build_backbone(config: ModelConfig) -> "PreTrainedModel":
    """A decoder that takes `inputs_embeds` and a 4-D attention mask, in float32 with random weights for `mini`.

    Raises:
        BackboneError: the backbone needs weights that are not wired in this release.
    """
    if config.backbone != "mini":
        raise BackboneError(
            f"model.backbone={config.backbone!r} is not wired yet; this release trains 'mini'. "
            "Set model.backbone=mini, or follow the changelog."
        )
    from transformers import Qwen3Config, Qwen3Model

    shape = Qwen3Config(
        vocab_size=1,  # words and items arrive as vectors
        hidden_size=config.hidden_dim,
        intermediate_size=2 * config.hidden_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        head_dim=config.hidden_dim // config.num_heads,
        max_position_embeddings=4096,
        attention_dropout=0.0,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return Qwen3Model(shape)
