"""Figures of a training run: what they count, and whether the probe's users were trained on."""

from dataclasses import replace

import pytest

from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training.batches import TrainingSet
from sigma_core.training.loop import run_steps
from sigma_core.training.probe import probe_loss
from sigma_core.training.sft import train_base
from tests.training.small_training import HashEncoder, small_features, small_shards, training_config
from tests.training.test_dense import small_trainer


def test_what_the_probe_read_before_is_not_counted() -> None:
    trainer, data = small_trainer()
    prefixes = trainer.prefixes.numpy()

    def run() -> float:
        figures = run_steps(
            trainer, data, prefixes, dict(trainer.model.named_parameters()), steps=1, peak=0.0, seed=5,
            tracker=NullTracker(), progress=no_progress, label="test",
        )  # fmt: skip
        return float(figures["padding_share"])

    share, tokens = run(), trainer.tokens
    probe_loss(trainer, data, prefixes, seed=3)
    assert trainer.tokens > tokens
    assert (run(), trainer.tokens, len(trainer.padding)) == (share, tokens, 1)


def test_a_run_says_whether_its_probe_was_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    features, codebooks = small_features()
    config = training_config("mini", base_steps=2)

    def figure() -> bool:
        rest = (HashEncoder(), config, NullTracker(), no_progress)
        base = train_base(small_shards(), features, codebooks, *rest)  # type: ignore[arg-type]
        return bool(base.figures["probe_is_held_out"])

    assert not figure()  # two dozen users, and the hash holds none of them out

    def halves(data: TrainingSet) -> tuple[TrainingSet, TrainingSet]:
        return replace(data, users=data.users[::2]), replace(data, users=data.users[1::2])

    monkeypatch.setattr("sigma_core.training.probe.split_probe", halves)
    assert figure()
