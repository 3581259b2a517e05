"""The training loop that base and adapter share: learning rates, one optimizer step after another, figures of the run.

Holds no loss (`sft.Trainer`) and no sampling (`batches.py`). Our choice.
"""

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sigma_core.training.batches import TrainingSet, sample_steps

if TYPE_CHECKING:
    import torch

    from sigma_core.tracking import Progress, Tracker
    from sigma_core.training.sft import Trainer


def learning_rate(step: int, steps: int, peak: float, warmup_share: float) -> float:
    """Linear warm-up, then cosine decay to a twentieth of the peak."""
    warmup = max(1, int(steps * warmup_share))
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def run_steps(
    trainer: "Trainer",
    data: TrainingSet,
    prefixes_NP: np.ndarray,
    names: Mapping[str, "torch.nn.Parameter"],
    *,
    steps: int,
    peak: float,
    seed: int,
    tracker: "Tracker",
    progress: "Progress",
    label: str,
) -> dict[str, Any]:
    """Train the named parameters for `steps`; returns the figures of the run (first and last losses, tokens, padding share).

    Raises:
        FloatingPointError: a loss is not finite; nothing of the run should be kept.
    """
    import torch

    config = trainer.config.training
    gains = [parameter for name, parameter in names.items() if name.endswith(".gain")]
    parameters = [parameter for name, parameter in names.items() if not name.endswith(".gain")]
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "ratio": 1.0},
            {"params": gains, "ratio": config.gain_learning_rate_ratio, "weight_decay": 0.0},
        ],
        lr=peak,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
    )
    history: list[dict[str, float]] = []
    trainer.tokens = 0
    trainer.padding.clear()  # what the probe read before the clock starts is not of this run
    began = time.perf_counter()
    trainer.model.train()
    batches = sample_steps(data, prefixes_NP, config, steps, seed, trainer.collator.length)
    for step, inputs in enumerate(batches):
        rate = learning_rate(step, steps, peak, config.warmup_share)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["ratio"]
        losses = trainer.losses(inputs)
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(
                f"{label}: loss is {losses['loss'].item()} at step {step}; lower the learning rate."
            )
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_([*parameters, *gains], config.grad_clip)
        optimizer.step()
        values = {name: value.item() for name, value in losses.items()}
        history.append(values)
        work = {
            "tokens_per_second": trainer.tokens / max(time.perf_counter() - began, 1e-9),
            "padding_share": trainer.padding[-1],
        }
        tracker.log({**values, "learning_rate": rate, **work}, step=step)
        progress(step + 1, steps, f"{label} loss {values['loss']:.3f}")
    trainer.model.eval()
    seconds = time.perf_counter() - began
    tenth = max(1, steps // 10)
    figures: dict[str, Any] = {"steps": steps, "seconds": round(seconds, 1)}
    for name in history[0]:
        figures[f"{name}_first"] = float(np.mean([h[name] for h in history[:tenth]]))
        figures[f"{name}_last"] = float(np.mean([h[name] for h in history[-tenth:]]))
    figures["tokens_per_second"] = round(trainer.tokens / max(seconds, 1e-9))
    figures["padding_share"] = round(float(np.mean(trainer.padding)), 4)
    figures["users"] = len(data.users)
    figures["dropped_targets"] = data.dropped_targets
    return figures
