"""Where a training stands after an epoch, on disk, so that a stopped one goes on bit by bit where it was.

Holds tensors in safetensors and the rest in JSON: weights, their average, the best ones, Adam's moments, and the state of both
random generators. Our choice.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sigma_core.artifacts import read_json, write_json

_TORCH_RANDOM = "random"


def save_checkpoint(
    path: Path,
    networks: dict[str, nn.Module],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    facts: dict[str, Any],
) -> None:
    """Write `path` (tensors) and its JSON twin, the twin last; `facts` are JSON values of the caller."""
    from safetensors.torch import save_file

    tensors = {
        f"{name}/{key}": value for name, net in networks.items() for key, value in net.state_dict().items()
    }
    tensors |= {f"best/{key}": value for key, value in best.items()}
    moments = optimizer.state_dict()["state"]
    tensors |= {f"adam/{i}/{key}": value for i, state in moments.items() for key, value in state.items()}
    tensors[_TORCH_RANDOM] = torch.get_rng_state()
    number = int(facts["epoch"])
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_suffix(f".{number}.safetensors")
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, target)
    write_json(path, {**facts, "numpy_random": rng.bit_generator.state})
    path.with_suffix(f".{number - 1}.safetensors").unlink(missing_ok=True)


def load_checkpoint(
    path: Path,
    networks: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Put everything back as it was; returns the facts (empty where there is no checkpoint) and the best weights."""
    from safetensors.torch import load_file

    if not path.exists():
        return {}, {}
    facts: dict[str, Any] = read_json(path)
    tensors = load_file(path.with_suffix(f".{facts['epoch']}.safetensors"))
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, rest = key.partition("/")
        parts.setdefault(name, {})[rest] = value
    for name, network in networks.items():
        network.load_state_dict(parts[name])
    state = optimizer.state_dict()
    for key, value in parts.get("adam", {}).items():
        number, _, field = key.partition("/")
        state["state"].setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(state)
    rng.bit_generator.state = facts.pop("numpy_random")
    torch.set_rng_state(tensors[_TORCH_RANDOM])
    return facts, parts.get("best", {})


def drop_checkpoint(path: Path) -> None:
    """Remove the checkpoint, where there is one."""
    for part in path.parent.glob(f"{path.stem}.*.safetensors"):
        part.unlink()
    path.unlink(missing_ok=True)
