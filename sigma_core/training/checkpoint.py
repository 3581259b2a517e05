"""The two model artifacts: `SigmaBase`, trained once a month, and `LoraCheckpoint`, the day's adapter and heads on top.

Holds saving, loading, merging and compatibility, no training. Tensors are safetensors, the adapter a PEFT directory that
`PeftModel.from_pretrained` reads; serving merges it itself, so that it needs no peft. Source: architecture, rules 3 and 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from sigma_core.artifacts import ArtifactError, digest_arrays, digest_json, read_json, write_json
from sigma_core.config import ModelConfig
from sigma_core.model.backbone import backbone_digest, is_mini
from sigma_core.pretrained import merge_lora

if TYPE_CHECKING:
    from sigma_core.grounding.encoder import GroundedEncoder
    from sigma_core.model.fusion import ProjectAndFuse
    from sigma_core.model.sigma import SigmaModel
    from sigma_core.tokenization.codebooks import Codebooks

HEADS: Final = (
    "prefix_head", "prefix_gain", "prefix_bias", "prefix_activity", "focus_gain", "lexical_gain", "pointer", "copy_gate", "affinity_gain", "item_head",
    "item_activity", "neighbor", "neighbor_gain",
)  # fmt: skip
FROZEN: Final = ("fit_gain",)
"""Gains that the day's adapter leaves as the base has them: three weeks may hold no holiday, and how far words must fit was
unlearned for it (docs/experiments.md)."""
META: Final = "meta.json"
ADAPTER: Final = "adapter"


def compatibility(codebooks: "Codebooks", encoder: "GroundedEncoder") -> str:
    """What a model's prefix tokens and vectors mean: the encoder and the codebooks. A catalog update never changes it."""
    return digest_json({"encoder": encoder.digest(), "codebooks": codebooks.digest()})


def is_head(name: str) -> bool:
    """True for a parameter that the day's checkpoint carries whole."""
    return name.split(".", 1)[0] in HEADS


def is_adapter(name: str) -> bool:
    """True for a tensor of a LoRA adapter, by PEFT's name."""
    return ".lora_" in name


def is_own_tensor(name: str, config: ModelConfig) -> bool:
    """True for what an artifact carries: everything, but the weights of a real LLM, which stay where they are."""
    return is_mini(config) or not name.startswith("backbone.")


@dataclass
class ModelArtifact:
    """What both model artifacts share.

    Attributes:
        tensors: float32 arrays by parameter name.
        bound_to: the compatibility digest.
        apf_temperature: tau of APF, calibrated on held-out users.
        typical_sigma: geometric mean of sigma there; APF's bounds lie around it.
        catalog_weight: of the catalogue-wide score in step 3, chosen there too; used where `generation.catalog_fusion` is on.
        figures: what training and its probe measured; not part of the digest.
    """

    tensors: dict[str, np.ndarray]
    bound_to: str
    apf_temperature: float
    typical_sigma: float
    figures: dict[str, Any] = field(default_factory=dict)
    catalog_weight: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Probe figures that the contract judges."""
        names = ("base_compatible", "beams_valid", "probe_loss", "base_loss")
        return {name: self.figures[name] for name in names}

    def summary(self) -> dict[str, Any]:
        """Size, calibration and the figures of the run."""
        size = sum(int(array.size) for array in self.tensors.values())
        calibration = {
            "parameters": size,
            "apf_temperature": self.apf_temperature,
            "catalog_weight": self.catalog_weight,
        }
        return calibration | self.figures

    def check_bound(self, bound_to: str, what: str) -> None:
        """Refuse to be used with another encoder or other codebooks.

        Raises:
            ArtifactError: the digests differ; the message says what to materialize again.
        """
        if self.bound_to != bound_to:
            raise ArtifactError(
                f"{type(self).__name__} was trained for encoder and codebooks {self.bound_to}, {what} has {bound_to}: their "
                "prefixes mean different things. Materialize sigma_base and lora_checkpoint of this month again."
            )


@dataclass
class SigmaBase(ModelArtifact):
    """The month's model, whole: `model` and `shape` rebuild it, `tensors` fill it."""

    model: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, int] = field(default_factory=dict)
    adapter_config: dict[str, Any] = field(default_factory=dict)
    backbone_digest: str = ""

    def build(self) -> "SigmaModel":
        """The model in evaluation mode, float32; a real LLM is read from where it lies and gets the adapter merged in.

        Raises:
            PretrainedError: the LLM is not on this machine.
            ArtifactError: it is there with other weights than the adapter was trained on.
        """
        import torch

        from sigma_core.model.sigma import ModelShape, SigmaModel

        config = ModelConfig.model_validate(self.model)
        if (found := backbone_digest(config)) != self.backbone_digest:
            raise ArtifactError(
                f"sigma_base was trained on {config.backbone} with weights {self.backbone_digest}, here its weights are "
                f"{found}: the adapter does not fit them. Put the former files back, or materialize sigma_base again."
            )
        network = SigmaModel(config, ModelShape(**self.shape))
        own = {name: array for name, array in self.tensors.items() if not is_adapter(name)}
        result = network.load_state_dict(
            {n: torch.from_numpy(a.copy()) for n, a in own.items()}, strict=False
        )
        lost = [name for name in result.missing_keys if is_own_tensor(name, config)]
        if lost or result.unexpected_keys:
            raise ArtifactError(
                f"sigma_base lacks {lost[:3]} and brings {result.unexpected_keys[:3]}: another release wrote it. "
                "Materialize sigma_base again."
            )
        if self.adapter_config:
            merge_adapter(network, self.tensors, self.adapter_config)
        return network.eval()

    def build_fusion(self) -> "ProjectAndFuse":
        """The fusion alone, in evaluation mode: item vectors need no backbone."""
        import torch

        from sigma_core.model.fusion import ProjectAndFuse
        from sigma_core.model.sigma import ModelShape

        config, shape = ModelConfig.model_validate(self.model), ModelShape(**self.shape)
        fusion = ProjectAndFuse.of(config, shape)
        start = "fusion."
        own = {n.removeprefix(start): a for n, a in self.tensors.items() if n.startswith(start)}
        fusion.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in own.items()})
        return fusion.eval()

    def save(self, directory: Path) -> None:
        """Write `model.safetensors`, `meta.json`, and `adapter/` (a PEFT folder) where the backbone is a real LLM."""
        from safetensors.numpy import save_file

        own = {name: array for name, array in self.tensors.items() if not is_adapter(name)}
        save_file(own, directory / "model.safetensors")
        if self.adapter_config:
            save_adapter(directory, self.tensors, self.adapter_config)
        write_json(directory / META, {**self._binding(), "figures": self.figures})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote, bit by bit. A real LLM's weights are read by `build`."""
        from safetensors.numpy import load_file

        tensors = load_file(directory / "model.safetensors")
        if (directory / ADAPTER).exists():
            tensors = {**load_file(directory / ADAPTER / "adapter_model.safetensors"), **tensors}
        return cls(tensors=tensors, **read_json(directory / META))

    def digest(self) -> str:
        """Digest of tensors, shape and binding."""
        return digest_json([digest_arrays(self.tensors), self._binding()])

    def _binding(self) -> dict[str, Any]:
        return {
            "bound_to": self.bound_to,
            "apf_temperature": self.apf_temperature,
            "typical_sigma": self.typical_sigma,
            "model": self.model,
            "shape": self.shape,
            **({"catalog_weight": self.catalog_weight} if self.catalog_weight else {}),
            **({"adapter_config": self.adapter_config} if self.adapter_config else {}),
            **({"backbone_digest": self.backbone_digest} if self.backbone_digest else {}),
        }


@dataclass
class LoraCheckpoint(ModelArtifact):
    """The day's adapter (names with `lora_`) and heads. It only fits the base whose digest it names."""

    base_digest: str = ""
    adapter_config: dict[str, Any] = field(default_factory=dict)

    def build(self, base: SigmaBase) -> "SigmaModel":
        """The base with the adapter merged into its backbone and the heads replaced, in evaluation mode.

        Raises:
            ArtifactError: the base is not the one it was trained on.
        """
        if base.digest() != self.base_digest:
            raise ArtifactError(
                f"the checkpoint was trained on base {self.base_digest}, arrived base {base.digest()}. "
                "Materialize lora_checkpoint of this day again."
            )
        network = base.build()
        if self.adapter_config:
            merge_adapter(network, self.adapter(), self.adapter_config)
        import torch

        heads = {name: torch.from_numpy(a.copy()) for name, a in self.tensors.items() if is_head(name)}
        missing = network.load_state_dict(heads, strict=False).unexpected_keys
        assert not missing, f"heads of another model: {missing}"
        return network.eval()

    def adapter(self) -> dict[str, np.ndarray]:
        """LoRA factors by PEFT's file names."""
        return {name: array for name, array in self.tensors.items() if is_adapter(name)}

    def save(self, directory: Path) -> None:
        """Write `adapter/` (PEFT), `heads.safetensors` and `meta.json`."""
        from safetensors.numpy import save_file

        save_adapter(directory, self.tensors, self.adapter_config)
        save_file({n: a for n, a in self.tensors.items() if is_head(n)}, directory / "heads.safetensors")
        write_json(directory / META, {**self._binding(), "figures": self.figures})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote, bit by bit."""
        from safetensors.numpy import load_file

        adapter = load_file(directory / ADAPTER / "adapter_model.safetensors")
        config = read_json(directory / ADAPTER / "adapter_config.json")
        tensors = {**adapter, **load_file(directory / "heads.safetensors")}
        return cls(tensors=tensors, adapter_config=config, **read_json(directory / META))

    def digest(self) -> str:
        """Digest of tensors, adapter settings and binding."""
        return digest_json([digest_arrays(self.tensors), self._binding(), self.adapter_config])

    def _binding(self) -> dict[str, Any]:
        return {
            "bound_to": self.bound_to,
            "apf_temperature": self.apf_temperature,
            "typical_sigma": self.typical_sigma,
            "base_digest": self.base_digest,
            **({"catalog_weight": self.catalog_weight} if self.catalog_weight else {}),
        }


def without_adapter(base: SigmaBase) -> LoraCheckpoint:
    """The base as it is, in the form that readers of a checkpoint take: its own heads and no adapter. Not to be saved."""
    return LoraCheckpoint(
        tensors={name: array for name, array in base.tensors.items() if is_head(name)},
        bound_to=base.bound_to,
        apf_temperature=base.apf_temperature,
        typical_sigma=base.typical_sigma,
        base_digest=base.digest(),
    )


def save_adapter(directory: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    """Write the LoRA tensors among `tensors` as `adapter/`, a folder that `PeftModel.from_pretrained` opens."""
    from safetensors.numpy import save_file

    folder = directory / ADAPTER
    folder.mkdir()
    low_rank = {name: array for name, array in tensors.items() if is_adapter(name)}
    save_file(low_rank, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(folder / "adapter_config.json", config)


def merge_adapter(
    network: "SigmaModel", adapter: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> None:
    """Add each LoRA product, scaled by alpha / rank, to the backbone weight it belongs to."""
    merge_lora(network.backbone, adapter, config)


def tensors_of(network: "SigmaModel") -> dict[str, np.ndarray]:
    """All parameters and buffers as float32 arrays, in name order."""
    state = network.state_dict()
    return {name: state[name].detach().cpu().numpy().copy() for name in sorted(state)}
