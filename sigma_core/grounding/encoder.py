"""The grounded text encoder: a text in, v_text out.

Holds the artifact - merged backbone, down-projection, and the LoRA adapter it was merged from - and its `encode`. A BERT is saved
merged; of any other model only the adapter is, with the digest of the weights it was trained on, and loading merges it again.
Training is in `train.py`; nothing here imports peft. Source: paper section on grounding (encoder, last-token pooling,
down-projection, L2 normalisation); MiniLM with mean pooling is our choice for CPUs.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from sigma_core.artifacts import ArtifactError, digest_arrays, digest_json, read_json, write_json
from sigma_core.grounding import text_backbone as tb
from sigma_core.grounding.lexical import LexicalHash, no_lexical
from sigma_core.grounding.text_network import network_of
from sigma_core.pretrained import Pretrained, merge_lora
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_PROJECTION: Final = "projection.safetensors"
_LEXICAL: Final = "lexical.safetensors"
_PROGRESS_EVERY: Final = 16  # batches


class Adapter:
    """A LoRA adapter in PEFT's file form.

    Attributes:
        config: what goes into `adapter_config.json`; lists sorted, so that equal adapters are equal bytes.
        tensors: float32 arrays by PEFT's names; empty where the encoder was not trained.
    """

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        self.config = dict(config)
        self.tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}


class GroundedEncoder:
    """v_text of any text.

    Attributes:
        model: the merged backbone, frozen.
        weight, bias: float32 [text_dim, H] and [text_dim], the down-projection of the pooled state.
        pad_buckets: the fixed pad lengths; longer texts are cut at the largest.
        adapter: the LoRA part that was merged into `model`.
        source: the weights `model` was made from, where the artifact only refers to them; none: it holds `model`.
        lexical: which words a text says, beside what it means.
        pooling, padding_side: of a text's tokens, see `text_network.py`.
        figures: what training measured (summary).
    """

    def __init__(
        self,
        model: Any,
        tokenizer_files: Mapping[str, str],
        weight: np.ndarray,
        bias: np.ndarray,
        *,
        pad_buckets: Sequence[int],
        adapter: Adapter,
        figures: Mapping[str, Any] | None = None,
        source: Pretrained | None = None,
        pooling: str = "auto",
        padding_side: str = "right",
        lexical: LexicalHash | None = None,
    ) -> None:
        self.model, self.source, self.pooling, self.padding_side = model, source, pooling, padding_side
        self.tokenizer_files = dict(tokenizer_files)
        self.weight = np.ascontiguousarray(weight, dtype=np.float32)
        self.bias = np.ascontiguousarray(bias, dtype=np.float32)
        self.pad_buckets = tuple(sorted(int(length) for length in pad_buckets))
        self.adapter, self.lexical = adapter, lexical or no_lexical()
        self.figures = dict(figures or {})
        self._tokenizer: Tokenizer = tb.make_tokenizer(self.tokenizer_files, self.pad_buckets[-1])
        self._network = network_of(model, pooling, padding_side)
        self._digest: str | None = None

    @property
    def text_dim(self) -> int:
        """Width of v_text."""
        return int(self.weight.shape[0])

    def to(self, device: "torch.device | str") -> Self:
        """Itself, with the model on the device; what it saves and its digest stay the same."""
        self.model.to(device)
        return self

    def encode(
        self, texts: Sequence[str], progress: Progress = no_progress, *, few: bool = False
    ) -> np.ndarray:
        """float32 [len(texts), text_dim], unit rows.

        Every distinct text is encoded once. A row depends on its text alone, bit by bit: not on the other texts, their
        number or their order. With `few`, for live requests, batches are no larger than the texts need: an eighth of the time
        for one text, and the last bits (1e-7) may depend on how many there are.
        """
        import torch

        distinct = sorted(set(texts))
        out = np.zeros((len(distinct), self.text_dim), dtype=np.float32)
        rows = min(max(len(distinct), 1), tb.BATCH_ROWS) if few else tb.BATCH_ROWS
        batches = tb.token_batches(distinct, self._tokenizer, self.pad_buckets, self.padding_side, rows)
        weight, bias = torch.from_numpy(self.weight), torch.from_numpy(self.bias)
        device, network = next(self.model.parameters()).device, self._network
        with torch.inference_mode():
            for done, batch in enumerate(batches, start=1):
                mask = batch.mask.to(device)
                states = network.run(network.layers, network.embed(batch.ids.to(device)), mask)
                pooled = network.pool(states, mask)
                vectors = torch.nn.functional.linear(pooled.cpu(), weight, bias)
                vectors = torch.nn.functional.normalize(vectors, dim=1)
                out[batch.rows] = vectors.numpy()[: len(batch.rows)]
                if done % _PROGRESS_EVERY == 0 or done == len(batches):
                    progress(done, len(batches), f"batches of {tb.BATCH_ROWS} texts encoded")
        row_of = {text: row for row, text in enumerate(distinct)}
        result: np.ndarray = out[[row_of[text] for text in texts]]
        return result

    def match_vectors(self, texts: Sequence[str], *, few: bool = False) -> np.ndarray:
        """float32 [len(texts), text_dim + lexical width]: what a request's words are compared with items by. The dot product of
        two is the cosine of their v_text plus the weighted cosine of their words. `few` as in `encode`.
        """
        return np.concatenate((self.encode(texts, few=few), self.lexical.encode(texts)), axis=1)

    def save(self, directory: Path) -> None:
        """Write `model/` (a BERT: a transformers folder; else only the tokenizer), `projection.safetensors`, `adapter/` (a PEFT
        folder) and `meta.json`.
        """
        from safetensors.numpy import save_file as save_arrays
        from safetensors.torch import save_file

        folder, adapter = directory / "model", directory / "adapter"
        folder.mkdir()
        adapter.mkdir()
        if self.source is None:
            state = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
            save_file(state, folder / tb.WEIGHTS, metadata={"format": "pt"})
            _write_text(folder / tb.CONFIG, _model_config(self.model))
        for name, content in self.tokenizer_files.items():
            (folder / name).write_text(content)
        save_arrays({"weight": self.weight, "bias": self.bias}, directory / _PROJECTION)
        save_arrays(self.lexical.arrays(), directory / _LEXICAL)
        _write_text(adapter / "adapter_config.json", self.adapter.config)
        save_arrays(self.adapter.tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        meta = {"pad_buckets": self.pad_buckets, "figures": self.figures, **self._reading()}
        meta["lexical"] = self.lexical.settings()
        write_json(directory / "meta.json", meta)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote, without peft and without a word on stdout or stderr.

        Raises:
            BackboneError: the weights the artifact refers to are not on this machine.
            ArtifactError: they are, but they are others than those it was trained on.
        """
        from safetensors.numpy import load_file

        meta = read_json(directory / "meta.json")
        projection, words = load_file(directory / _PROJECTION), load_file(directory / _LEXICAL)
        folder = directory / "adapter"
        adapter = Adapter(
            read_json(folder / "adapter_config.json"), load_file(folder / "adapter_model.safetensors")
        )
        source = None
        if "backbone" in meta:
            model, source = _referred(meta, adapter)
        else:
            model = tb.load_model(directory / "model")
        return cls(
            model,
            tb.read_tokenizer_files(directory / "model"),
            projection["weight"],
            projection["bias"],
            pad_buckets=meta["pad_buckets"],
            adapter=adapter,
            figures=meta["figures"],
            source=source,
            pooling=meta.get("pooling", "auto"),
            padding_side=meta.get("padding_side", "right"),
            lexical=LexicalHash(words["words"], words["idf"], **meta["lexical"]),
        )

    def digest(self) -> str:
        """Digest of all that decides a row: merged weights, projection, tokenizer, pad lengths."""
        lexical = [digest_arrays(self.lexical.arrays()), self.lexical.settings()]
        if self._digest is None and self.source is not None:
            scale = [self.adapter.config.get(name) for name in ("r", "lora_alpha")]
            arrays = digest_arrays({**self.adapter.tensors, "weight": self.weight, "bias": self.bias})
            rest = [self.tokenizer_files[tb.TOKENIZER], list(self.pad_buckets), lexical]
            self._digest = digest_json([arrays, scale, self._reading(), *rest])
        elif self._digest is None:
            state = {
                f"model.{name}": tensor.cpu().numpy() for name, tensor in self.model.state_dict().items()
            }
            arrays = digest_arrays({**state, "weight": self.weight, "bias": self.bias})
            odd = [self._reading()] if self._reading() else []
            self._digest = digest_json(
                [arrays, self.tokenizer_files[tb.TOKENIZER], list(self.pad_buckets), lexical, *odd]
            )
        assert self._digest is not None
        return self._digest

    def _reading(self) -> dict[str, Any]:
        """What differs from a BERT of its own with its natural pooling."""
        out: dict[str, Any] = {}
        if self.source is not None:
            out = {"backbone": self.source.name, "backbone_digest": self.source.digest()}
        pooling = self._network.pooling
        if self.pooling != "auto" or pooling != self._network.natural_pooling:
            out["pooling"] = pooling
        if self.padding_side != "right":
            out["padding_side"] = self.padding_side
        return out

    def summary(self) -> dict[str, Any]:
        """Width, pad lengths and the figures of training."""
        return {"text_dim": self.text_dim, "pad_buckets": list(self.pad_buckets), **self.figures}


def _referred(meta: Mapping[str, Any], adapter: Adapter) -> tuple[Any, Pretrained]:
    opened = tb.open_backbone(meta["backbone"])
    assert opened.source is not None
    if (found := opened.source.digest()) != meta["backbone_digest"]:
        raise ArtifactError(
            f"the grounded encoder was trained on {meta['backbone']} with weights {meta['backbone_digest']}, here its weights "
            f"are {found}. Put the former files back, or materialize grounded_encoder again."
        )
    if adapter.tensors:
        merge_lora(opened.model, adapter.tensors, adapter.config)
    return opened.model, opened.source


def _model_config(model: Any) -> dict[str, Any]:
    values: dict[str, Any] = model.config.to_dict()
    values.update(architectures=["BertModel"], model_type="bert")
    for volatile in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        values.pop(volatile, None)
    return values


def _write_text(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, default=str) + "\n")
