"""How fast what learns: warm-up, decay, and gains that move faster than the rest."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sigma_core.config import profile_config
from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training.loop import learning_rate, run_steps
from tests.training.test_sampling import PREFIXES, asks, person


def test_the_rate_rises_evenly_and_falls_to_a_twentieth() -> None:
    """Ten steps, four of them warm-up, peak 1."""
    rates = [learning_rate(step, 10, 1.0, 0.4) for step in range(11)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[7] == pytest.approx(0.05 + 0.95 / 2)  # half of the decay
    assert rates[10] == pytest.approx(0.05)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def moved(steps: int, peak: float, **training: Any) -> tuple[float, float]:
    """How far a weight and a gain move down an even slope, where Adam's steps are as long as the rate."""
    config = profile_config("toy", {"training": training})
    model = torch.nn.Module()
    model.weight, model.gain = (torch.nn.Parameter(torch.tensor(1.0)) for _ in range(2))
    trainer = SimpleNamespace(
        config=config, model=model, tokens=0, padding=[], collator=SimpleNamespace(length=None)
    )

    def losses(_: object) -> dict[str, torch.Tensor]:
        trainer.padding.append(0.0)
        return {"loss": model.weight + model.gain}

    trainer.losses = losses
    data = SimpleNamespace(users=[person("u", asks("query", 0))], dropped_targets=0)
    run_steps(
        trainer, data, PREFIXES, {"head.weight": model.weight, "head.gain": model.gain},  # type: ignore[arg-type]
        steps=steps, peak=peak, seed=0, tracker=NullTracker(), progress=no_progress, label="test",
    )  # fmt: skip
    return 1.0 - model.weight.item(), 1.0 - model.gain.item()


def test_a_run_moves_weights_by_its_rates_and_gains_so_many_times_as_far() -> None:
    rates = [learning_rate(step, 8, 1e-3, 0.5) for step in range(8)]
    weight, gain = moved(8, 1e-3, warmup_share=0.5, weight_decay=0.0, gain_learning_rate_ratio=10.0)
    assert sum(rates[:4]) == pytest.approx(2.5e-3)  # a quarter, two, three and four of the peak
    assert weight == pytest.approx(sum(rates), rel=1e-3)
    assert gain == pytest.approx(10 * sum(rates), rel=1e-3)


def test_weights_decay_and_gains_do_not() -> None:
    weight, gain = moved(1, 1e-3, weight_decay=0.5, gain_learning_rate_ratio=1.0)
    assert weight == pytest.approx(1e-3 + 1e-3 * 0.5, rel=1e-3)
    assert gain == pytest.approx(1e-3, rel=1e-3)
