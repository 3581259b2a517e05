"""The texts under the grounded encoder as tokens in fixed shapes, and MiniLM's BERT read from its files.

Holds no trained projection and no loss; other models come from `pretrained.py`, how each is run is `text_network.py`. Two
habits make a row depend on its text alone, bit by bit: texts are padded to a few fixed lengths, and every batch has the same
number of rows. Layers are called one by one, so that the frozen lower ones can be run once and kept. Source: our choice (stack.md sections 5 and 9).
"""

# Shape legend: R rows of a batch (BATCH_ROWS, but for a few live texts), T pad length of a bucket, H hidden width.

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sigma_core.pretrained import Pretrained, PretrainedError, find_pretrained

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from torch.nn import Module
    from transformers.models.bert.modeling_bert import BertModel

BackboneError = PretrainedError  # not on this machine, or of a kind this code cannot run

BATCH_ROWS: Final = 32
WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
_POOLINGS: Final = {
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
    "cls": "pooling_mode_cls_token",
}
TOKENIZER_FILES: Final = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class TokenBatch(NamedTuple):
    """One batch of fixed shape. `rows` are positions in the caller's texts; the rest of the R rows is filling."""

    rows: np.ndarray  # int64 [<= R]
    ids: "Tensor"  # int64 [R, T]
    mask: "Tensor"  # bool [R, T]


class OpenBackbone(NamedTuple):
    """A loaded model with its tokenizer. `source` names the weights where an encoder only refers to them (all but BERT);
    `pooling` is the one it was trained with, where its folder says so.
    """

    model: Any
    files: dict[str, str]
    source: Pretrained | None
    pooling: str | None = None


def open_backbone(name: str) -> OpenBackbone:
    """The model `name` (minilm, a short name, a folder, a cached Hub id), float32, frozen, with its tokenizer's files.

    Raises:
        BackboneError: it is not on this machine, or cannot be read.
    """
    found = find_pretrained(name)
    pooling = trained_pooling(found.folder)
    if is_kept_whole(found):
        return OpenBackbone(load_model(found.folder), read_tokenizer_files(found.folder), None, pooling)
    files = {TOKENIZER: found.tokenizer().to_str()}
    return OpenBackbone(found.load(attn_implementation=found.attention()), files, found, pooling)


def is_kept_whole(found: Pretrained) -> bool:
    """Whether an encoder holds the model's weights itself (a BERT), rather than refer to its files."""
    return found.gguf is None and json.loads((found.folder / CONFIG).read_text()).get("model_type") == "bert"


def trained_pooling(directory: Path) -> str | None:
    """mean, last or cls, as sentence-transformers writes it beside a model; none where it says nothing, or another."""
    file = directory / "1_Pooling" / CONFIG
    told = json.loads(file.read_text()) if file.exists() else {}
    modes = {name for name, key in _POOLINGS.items() if told.get(key) or told.get("pooling_mode") == key}
    return modes.pop() if len(modes) == 1 else None


def load_model(directory: Path) -> "BertModel":
    """The model of `directory`, float32, in evaluation mode. Prints nothing.

    Raises:
        BackboneError: a file is missing, the model is no BERT, or the weights do not fit its config.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (directory / name).exists():
            raise BackboneError(
                f"{directory} lacks {name}; needed a transformers folder of a BERT-family model."
            )
    values: dict[str, Any] = json.loads((directory / CONFIG).read_text())
    if values.get("model_type") != "bert":
        raise BackboneError(
            f"{directory} holds a {values.get('model_type')!r} model; this reads BERT-family models only. "
            "Other models are opened by name: open_backbone."
        )
    try:
        state = _bare(load_file(directory / WEIGHTS))
    except SafetensorError as error:
        raise BackboneError(f"{directory / WEIGHTS} cannot be read: {error}. Get the model again.") from error
    with torch.random.fork_rng(
        devices=[]
    ):  # the weights are about to be replaced; the caller's random state is not
        model = BertModel(BertConfig(**values), add_pooling_layer="pooler.dense.weight" in state)
    result = model.load_state_dict(state, strict=False)
    stray = [
        key for key in result.unexpected_keys if not key.endswith("position_ids")
    ]  # a buffer of old checkpoints
    if result.missing_keys or stray:
        raise BackboneError(
            f"{directory / WEIGHTS}: missing {result.missing_keys[:3]}, unexpected {stray[:3]}."
        )
    return model.float().eval().requires_grad_(False)


def _bare(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    # A BERT with a head, such as bert-base-uncased, without it; and the names that old checkpoints have for a norm's tensors.
    start = "bert."
    if any(name.startswith(start) for name in state):
        state = {name.removeprefix(start): t for name, t in state.items() if name.startswith(start)}
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for before, after in old.items():
        state = {name.replace(before, after): tensor for name, tensor in state.items()}
    return state


def read_tokenizer_files(directory: Path) -> dict[str, str]:
    """The tokenizer's files of `directory` as text, by name."""
    return {name: (directory / name).read_text() for name in TOKENIZER_FILES if (directory / name).exists()}


def make_tokenizer(files: dict[str, str], max_tokens: int) -> "Tokenizer":
    """A tokenizer that cuts at `max_tokens`, pads nothing, adds the model's own special tokens, and reads those that stand in a
    text ("[SEP]") as the letters they are made of.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(files[TOKENIZER])
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    tokenizer.encode_special_tokens = True
    return tokenizer


def token_batches(
    texts: Sequence[str],
    tokenizer: "Tokenizer",
    buckets: Sequence[int],
    padding_side: str = "right",
    batch_rows: int = BATCH_ROWS,
) -> list[TokenBatch]:
    """All texts in batches of `batch_rows` rows, each of one bucket's pad length, shortest bucket first.

    Padding has id 0; nothing may read it but through the mask.
    """
    import torch

    tokens = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    bucket_of = np.searchsorted(sorted(buckets), [len(ids) for ids in tokens])
    batches = []
    for bucket, length in enumerate(sorted(buckets)):
        members = np.flatnonzero(bucket_of == bucket)
        for start in range(0, len(members), batch_rows):
            rows = members[start : start + batch_rows]
            ids_RT = torch.zeros((batch_rows, length), dtype=torch.long)
            mask_RT = torch.zeros((batch_rows, length), dtype=torch.bool)
            left = padding_side == "left"
            mask_RT[:, -1 if left else 0] = (
                True  # filling rows attend to one token, else their softmax would be over nothing
            )
            for place, row in enumerate(rows):
                own = slice(length - len(tokens[row]), length) if left else slice(len(tokens[row]))
                ids_RT[place, own] = torch.tensor(tokens[row], dtype=torch.long)
                mask_RT[place, own] = True
            batches.append(TokenBatch(rows, ids_RT, mask_RT))
    return batches


def run_layers(layers: Sequence["Module"], states_RTH: "Tensor", mask_RT: "Tensor") -> "Tensor":
    """[R, T, H] after `layers`. The mask is always given in full: transformers drops it where a batch has no padding, and
    takes another kernel with other last bits then.
    """
    mask_R11T = mask_RT[:, None, None, :]
    for layer in layers:
        states_RTH = layer(states_RTH, mask_R11T)
    return states_RTH


def mean_pool(states_RTH: "Tensor", mask_RT: "Tensor") -> "Tensor":
    """[R, H] unit rows: the mean over a row's own tokens, normalised (the pooling MiniLM was trained with)."""
    from torch.nn import functional

    weight_RT1 = mask_RT[:, :, None].to(states_RTH.dtype)
    return functional.normalize((states_RTH * weight_RT1).sum(dim=1) / weight_RT1.sum(dim=1), dim=1)
