"""LoRA around a backbone: attaching it with peft, what trains then, and its tensors and settings for an artifact.

Used by the month's base where the backbone is a real LLM, and by the day's adapter on any. peft is imported here, in
`lora.py` and nowhere on the way to a recommendation. Source: paper, multi-task SFT (LoRA); targets are our choice.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from sigma_core.model.backbone import backbone_digest, is_mini
from sigma_core.pretrained_checks import LORA_TARGETS, check_takes_lora
from sigma_core.training.checkpoint import is_own_tensor

if TYPE_CHECKING:
    from torch.nn import Parameter

    from sigma_core.config import SigmaConfig
    from sigma_core.model.sigma import SigmaModel


def attach_adapter(model: "SigmaModel", config: "SigmaConfig") -> None:
    """Wraps the model's backbone in a fresh LoRA adapter; its own weights take no gradient from here on.

    Raises:
        PretrainedError: the backbone lacks layers that LoRA goes to.
    """
    from peft import LoraConfig, get_peft_model

    check_takes_lora(config.model.backbone, model.backbone)
    settings = config.training
    model.backbone = get_peft_model(
        model.backbone,
        LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=list(LORA_TARGETS)),
    )


def base_parameters(model: "SigmaModel", config: "SigmaConfig") -> "dict[str, Parameter]":
    """What the month's training changes: everything of a mini model; of a real LLM a LoRA adapter, attached here, and all
    that is new (prefix tokens, fusion, heads), never its own weights. By name.
    """
    if not is_mini(config.model):
        attach_adapter(model, config)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def base_artifact_parts(model: "SigmaModel", config: "SigmaConfig") -> dict[str, Any]:
    """`tensors`, `adapter_config` and `backbone_digest` of a trained base. A real LLM's own weights are not among them."""
    state = model.state_dict()
    tensors = {name: _array(state[name]) for name in sorted(state) if is_own_tensor(name, config.model)}
    if is_mini(config.model):
        return {"tensors": tensors}
    return {
        "tensors": adapter_tensors(model) | tensors,
        "adapter_config": adapter_config(config),
        "backbone_digest": backbone_digest(config.model),
    }


def adapter_tensors(model: "SigmaModel") -> dict[str, np.ndarray]:
    """The attached adapter's tensors by PEFT's names, sorted."""
    from peft import get_peft_model_state_dict

    # save_embedding_layers: left to itself peft looks the base model up on the Hub
    state = get_peft_model_state_dict(model.backbone, save_embedding_layers=False)
    return {name: _array(tensor) for name, tensor in sorted(state.items())}


def adapter_config(config: "SigmaConfig") -> dict[str, Any]:
    """PEFT's adapter_config.json with sorted lists, so that equal adapters are equal bytes."""
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None if is_mini(config.model) else config.model.backbone,
        "r": config.training.lora_rank,
        "lora_alpha": config.training.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(LORA_TARGETS),
    }


def _array(tensor: Any) -> np.ndarray:
    own = tensor.detach().cpu()
    out: np.ndarray = (own.float() if own.is_floating_point() else own).numpy().copy()
    return out
