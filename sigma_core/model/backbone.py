"""Backbones: the decoder LLM that reads the prompt, by name, and how new tokens are fitted to it.

Holds the mini backbone's shape; what a real one must be is `pretrained_checks.py`. Nothing of items or tasks. The
mini backbone is a small Qwen3-shaped decoder trained here; its words are the grounded encoder's lexical embeddings, frozen.
A real one (SmolLM2, Qwen3, any folder of a rotary decoder) keeps its own words and weights; training adds LoRA, prefix tokens
and heads. Source: paper, multi-task SFT (Qwen3 family); mini is our choice for two CPU cores.
"""

import inspect
from typing import TYPE_CHECKING, Final

from sigma_core.config import ModelConfig
from sigma_core.pretrained import PretrainedError, find_pretrained
from sigma_core.pretrained_checks import check_reads_trees, tree_refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sigma_core.model.sigma import SigmaModel
    from sigma_core.model.words import Words

MINI: Final = "mini"
MINILM_WIDTH: Final = 384  # of MiniLM's lexical embeddings, the mini backbone's words
SPECIAL_WORDS: Final = (
    "user profile",
    "recently bought",
    "favorites",
    "task",
    "answer",
    "item",
)  # by special


def is_mini(config: ModelConfig) -> bool:
    """True for the backbone that is trained whole, from random weights."""
    return config.backbone == MINI


def lexical_width(config: ModelConfig) -> int:
    """Width of the vectors that words enter with: MiniLM's for mini, else the backbone's own."""
    return MINILM_WIDTH if is_mini(config) else int(find_pretrained(config.backbone).config().hidden_size)


def backbone_digest(config: ModelConfig) -> str:
    """Digest of the pre-trained weights an artifact stands on; empty for mini, whose weights are in the artifact."""
    return "" if is_mini(config) else find_pretrained(config.backbone).digest()


def build_backbone(config: ModelConfig) -> "PreTrainedModel":
    """A decoder that takes `inputs_embeds`, positions and a 4-D attention mask, float32; random for mini, else frozen.

    Raises:
        PretrainedError: the weights are not on this machine, or the model cannot read token trees.
    """
    if not is_mini(config):
        found = find_pretrained(config.backbone)
        check_reads_trees(config.backbone, found.config())
        model = found.load(attn_implementation=found.attention())
        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise PretrainedError(tree_refusal(config.backbone, "it keeps no keys and values between calls"))
        return model
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


def fit_to_words(model: "SigmaModel", words: "Words") -> None:
    """Gives the new input vectors of a real backbone the size of its words: specials start as the mean of the words that
    describe them, prefix tokens at the words' root mean square, what stands beside an item small. Prefix centroids must
    be set. Does nothing for mini. Our choice.
    """
    import torch

    if is_mini(model.config):
        return
    table_VW = words.vectors()
    with torch.no_grad():
        size = table_VW.pow(2).mean().sqrt()
        for row, text in enumerate(SPECIAL_WORDS):
            model.specials[row] = table_VW[torch.from_numpy(words.ids(text))].mean(dim=0)
        tokens = model.prefix_tokens
        scale = size / tokens.project(tokens.centroids).pow(2).mean().sqrt().clamp_min(1e-6)
        tokens.project.weight.mul_(scale)
        model.stats_project.weight.mul_(size)
