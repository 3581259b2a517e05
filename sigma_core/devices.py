"""The torch device that `runtime.device` names: whether it is there, and what has to be true before anything runs on it.

Holds no tensor and no model; who trains or answers moves its own. Our choice.
"""

import logging
import os
from typing import TYPE_CHECKING, Final

from sigma_core.config import ConfigError

if TYPE_CHECKING:
    import torch

    from sigma_core.config import RuntimeConfig

CPU: Final = "cpu"
_CUBLAS: Final = "CUBLAS_WORKSPACE_CONFIG"
_LOG = logging.getLogger("sigma.devices")


def missing_device(name: str) -> str:
    """Why torch cannot use the device here and what to do about it; empty where it can."""
    if name == CPU:
        return ""
    import torch

    if torch.device(name).type != "cuda":
        return ""
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this torch ({torch.__version__}) is built for the CPU alone and cannot reach a GPU by CUDA; install torch from a CUDA "
            f"index (pytorch.org/get-started), or set runtime.device=cpu (arrived: {name!r})."
        )
    if not number:
        return (
            f"torch finds no CUDA device here; see that `nvidia-smi` lists one and that its driver fits torch {torch.__version__}, "
            f"or set runtime.device=cpu (arrived: {name!r})."
        )
    index = torch.device(name).index or 0
    if index >= number:
        there = ", ".join(f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in range(number))
        return f"torch finds {number} CUDA device{'s' * (number > 1)} here, numbered from 0: {there} (arrived: {name!r})."
    return ""


def check_device(name: str) -> None:
    """Nothing happens where torch can use the device.

    Raises:
        ConfigError: it cannot; the message says what is here and what to do.
    """
    if reason := missing_device(name):
        raise ConfigError(f"setting runtime.device: {reason}")


def training_device(runtime: "RuntimeConfig") -> "torch.device":
    """The device of `runtime`, ready to train on: with `runtime.deterministic` its matrix products may be repeatable.

    Raises:
        ConfigError: torch cannot use it here.
    """
    import torch

    check_device(runtime.device)
    if runtime.device != CPU and runtime.deterministic:  # cuBLAS reads it once, before its first product
        os.environ.setdefault(_CUBLAS, ":4096:8")
    return torch.device(runtime.device)


def answering_device(runtime: "RuntimeConfig") -> "torch.device":
    """As `training_device`, but the CPU (and a warning) where that is not here: a root trained on a GPU is served anywhere."""
    import torch

    if reason := missing_device(runtime.device):
        _LOG.warning("answers are computed on the CPU: %s", reason)
        return torch.device(CPU)
    return training_device(runtime)
