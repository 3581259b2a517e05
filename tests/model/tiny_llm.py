"""Tiny random decoders saved as transformers folders, with a word-level tokenizer: real backbones for tests, in milliseconds."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

WORDS = [
    "[PAD]",
    "[UNK]",
    "user",
    "profile",
    "recently",
    "bought",
    "favorites",
    "task",
    "answer",
    "item",
    "age",
    "forty",
    "x",
    "y",
    "q",
    "r",
    "s",
    "t",
    "soda",
    "tea",
    "milk",
    "red",
    "green",
    "please",
    "now",
    "fresh",
    "bread",
    "cheese",
    "apple",
    "juice",
    "for",
    "of",
    "a",
    "the",
]
SHAPE = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 6, "tie_word_embeddings": True}),
}
WHOLE_FAMILIES = {  # decoders that only run whole: scaled embeddings, a window, learned positions
    "granite": (
        GraniteConfig,
        GraniteForCausalLM,
        {"embedding_multiplier": 12.0, "residual_multiplier": 0.3},
    ),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 4}),
    "gpt2": (GPT2Config, GPT2LMHeadModel, {"resid_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}),
}


def save_tiny_llm(folder: Path, family: str = "qwen3", seed: int = 0, words: str = "") -> Path:
    """A random decoder of the family (24 wide, 2 layers, grouped keys) with its tokenizer, as a Hub repository has them.

    It knows `WORDS` and those of `words`.
    """
    known = list(dict.fromkeys([*WORDS, *words.split()]))
    config_class, model_class, extra = (FAMILIES | WHOLE_FAMILIES)[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(**SHAPE, **extra, vocab_size=len(known)))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4.0)  # random weights are too even to tell tokens apart
    model.save_pretrained(folder)
    return write_tokenizer(folder, known)


def save_tiny_model(folder: Path, name: str, **shape: object) -> Path:
    """A random model of any transformers class ("Gemma2ForCausalLM", "T5Model"), 24 wide, 2 layers, with the same tokenizer."""
    cls = getattr(transformers, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(cls.config_class(**{**SHAPE, "vocab_size": len(WORDS), **shape}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    return write_tokenizer(folder, WORDS)


def write_tokenizer(folder: Path, known: list[str]) -> Path:
    """A word-level tokenizer of the words `known` in a model's folder."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "pad_token": "[PAD]"})
    )
    return folder
