"""Losses on the toy world, where a perfect and a deaf ranker are known by hand; what is wrong with an adapter is said."""

from dataclasses import replace

import numpy as np
import pytest

from sigma_core.config import SigmaConfig
from sigma_core.evaluation.promotion import Fitness
from sigma_core.evaluation.promotion_evidence import adapter_fitness, guardrails, task_losses
from sigma_core.evaluation.requests import EvalRequest
from sigma_core.instruction.examples import ExampleSet
from sigma_core.tracking import NullTracker, no_progress
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase, compatibility
from sigma_core.training.lora import train_lora
from sigma_core.training.sft import train_base
from tests.evaluation.toy_evaluation import CONFIG, eval_day
from tests.instruction.small_world import small_catalog
from tests.training.small_training import HashEncoder, small_features, small_shards, training_config

ALL = CONFIG.model_copy(update={"promotion": CONFIG.promotion.model_copy(update={"sample_households": None})})


def perfect(requests: list[EvalRequest]) -> np.ndarray:
    return padded([request.targets.tolist() for request in requests])


def without_u1(requests: list[EvalRequest]) -> np.ndarray:
    return padded([[] if request.user_id == "u1" else request.targets.tolist() for request in requests])


def padded(lists: list[list[int]]) -> np.ndarray:
    return np.array([(rows + [-1] * 20)[:20] for rows in lists], np.int32)


def test_the_same_lists_lose_nothing() -> None:
    for loss in task_losses(eval_day(), perfect, perfect, ALL).values():
        assert (loss.challenger, loss.incumbent, loss.upper) == (1, 1, 0)


def test_losses_count_targets_and_are_bounded_from_above() -> None:
    losses = task_losses(eval_day(), without_u1, perfect, ALL)
    assert set(losses) == {
        "just_for_you",
        "query",
        "category",
        "longtail",
        "discover",
        "holiday",
    }  # no season
    plain = losses["just_for_you"]
    assert (plain.num_targets, plain.num_households) == (4, 3)
    assert (plain.challenger, plain.incumbent) == (2 / 4, 1)  # u1 has two of the four targets
    assert 0.5 <= plain.upper <= 1
    assert (losses["longtail"].challenger, losses["longtail"].upper) == (1, 0)  # u4 alone
    assert (losses["query"].challenger, losses["query"].upper) == (0, 1)  # u1 alone: every resample loses all
    gain = task_losses(eval_day(), perfect, without_u1, ALL)["just_for_you"]
    assert gain.upper < 0.5, "who is better loses less than nothing, at the bound too"


def test_a_task_without_targets_is_not_compared() -> None:
    day = eval_day()
    general = day.examples.examples.head(3)
    few = replace(day, examples=ExampleSet(day.examples.contexts, general, {}))
    assert set(task_losses(few, perfect, perfect, ALL)) == {"just_for_you"}


@pytest.fixture(scope="module")
def trained() -> tuple[SigmaBase, LoraCheckpoint, SigmaConfig]:
    config = training_config("mini", base_steps=8, lora_steps=4)
    features, codebooks = small_features()
    shards, encoder = small_shards(), HashEncoder()
    rest = (features, codebooks, encoder, config, NullTracker(), no_progress)
    base = train_base(shards, *rest)  # type: ignore[arg-type]
    return base, train_lora(base, shards, *rest), config  # type: ignore[arg-type]


def fitness(trained: tuple[SigmaBase, LoraCheckpoint, SigmaConfig], checkpoint: LoraCheckpoint) -> Fitness:
    features, codebooks = small_features()
    return adapter_fitness(
        trained[0],
        checkpoint,
        small_shards(),
        features,
        codebooks,
        HashEncoder(),
        trained[2],  # type: ignore[arg-type]
    )


def test_the_probe_of_the_written_adapter_is_that_of_its_training(
    trained: tuple[SigmaBase, LoraCheckpoint, SigmaConfig],
) -> None:
    found = fitness(trained, trained[1])
    assert (found.num_not_finite, found.misfit, found.beams_valid) == (0, "", 1)
    assert found.probe_loss == pytest.approx(trained[1].figures["probe_loss"], rel=1e-4)
    assert found.base_loss == pytest.approx(trained[1].figures["base_loss"], rel=1e-4)


def test_valid_beams_tell_finite_scores_and_the_probe_loss_a_bad_adapter(
    trained: tuple[SigmaBase, LoraCheckpoint, SigmaConfig],
) -> None:
    """Beams are kept to prefixes that exist, so whatever finite numbers score them, all of them do."""

    def times(factor: float) -> Fitness:
        tensors = {
            name: array if "lora_" in name else np.float32(factor) * array
            for name, array in trained[1].tensors.items()
        }
        return fitness(trained, replace(trained[1], tensors=tensors))

    turned, beyond = times(-8.0), times(1e30)
    assert turned.beams_valid == 1.0
    assert turned.probe_loss > 1.05 * trained[1].figures["base_loss"]
    assert (beyond.num_not_finite, beyond.beams_valid) == (
        0,
        0.0,
    )  # weights are finite, what they make is not


def test_what_is_wrong_with_an_adapter_is_told_and_not_raised(
    trained: tuple[SigmaBase, LoraCheckpoint, SigmaConfig],
) -> None:
    name = next(iter(trained[1].tensors))
    nan = {**trained[1].tensors, name: np.full_like(trained[1].tensors[name], np.nan)}
    assert fitness(trained, replace(trained[1], tensors=nan)).num_not_finite == nan[name].size
    misfit = fitness(trained, replace(trained[1], base_digest="x")).misfit
    assert "was trained on base x" in misfit
    assert (
        "encoder and codebooks elsewhere"
        in fitness(trained, replace(trained[1], bound_to="elsewhere")).misfit
    )


def test_guardrails_are_those_of_the_lists(trained: tuple[SigmaBase, LoraCheckpoint, SigmaConfig]) -> None:
    features, codebooks = small_features()
    base, checkpoint, config = trained
    assert base.bound_to == compatibility(codebooks, HashEncoder())  # type: ignore[arg-type]
    contexts = small_shards()[0].contexts
    found = guardrails(base, checkpoint, features, small_catalog(), contexts, HashEncoder(), config)  # type: ignore[arg-type]
    assert found is not None
    assert 0 < found.coverage <= 1
    assert 0 <= found.cold_share <= 1
    assert found.latency_ms > 0
    assert (
        guardrails(base, checkpoint, features, small_catalog(), contexts.head(0), HashEncoder(), config)
        is None
    )  # type: ignore[arg-type]
