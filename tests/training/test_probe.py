"""The probe: nobody of it is trained on, and what is tried there is chosen by targets among the first twenty."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sigma_core.config import SigmaConfig, profile_config
from sigma_core.generation.fusion import typical
from sigma_core.training.batches import TrainingSet
from sigma_core.training.probe import MAX_PROBE_USERS, _Asked, _calibrated, split_probe
from tests.training.test_sampling import asks, person

SIGMA = torch.tensor([0.1, 0.4])


def test_nobody_is_in_training_and_probe_on_any_day() -> None:
    """Two hundred ids, each at two cuts."""
    people = [person(f"household {n}", asks("query", 0)) for n in range(200)]
    data = TrainingSet(people * 2, 3, np.zeros((2, 4, 4), dtype=np.float32))
    train, probe = split_probe(data)
    trained, judged = ({user.context.user_id for user in part.users} for part in (train, probe))
    assert not trained & judged
    assert len(trained | judged) == 200
    assert 4 <= len(judged) <= 25  # about one in sixteen
    assert len(train.users) + len(probe.users) == 400
    assert (train.dropped_targets, probe.dropped_targets) == (3, 0)


def test_a_large_probe_is_cut_and_what_is_cut_is_not_trained_on() -> None:
    people = [person(f"household {n}", asks("query", 0)) for n in range(200)]
    train, probe = split_probe(TrainingSet(people * 20, 0, np.zeros((1, 4, 4), dtype=np.float32)))
    assert len(probe.users) == MAX_PROBE_USERS
    assert not {u.context.user_id for u in train.users} & {u.context.user_id for u in probe.users}


def test_too_little_data_is_trained_and_probed_on_whole() -> None:
    data = TrainingSet([person("one", asks("query", 0))], 0, np.zeros((1, 4, 4), dtype=np.float32))
    assert all(part is data for part in split_probe(data))


class Found:
    """A recommender that lists so many of ten targets: by sharpening (5 at .7 and 1.5, else 2), and up by 3 at weights .25 and .5."""

    catalog_weight = typical_sigma = apf_temperature = 0.0

    def answer(self, searched: object, eligible: object, limit: int) -> list[list[Any]]:
        assert limit == 20
        assert self.typical_sigma == pytest.approx(typical(SIGMA).item())
        sharpening = round(self.typical_sigma * 0.2 / self.apf_temperature, 3)
        found = (5 if sharpening in (0.7, 1.5) else 2) + (3 if self.catalog_weight in (0.25, 0.5) else 0)
        return [[SimpleNamespace(row=9 - target) for target in range(found)]]


def calibrated(**settings: Any) -> tuple[float, float]:
    config: SigmaConfig = profile_config("toy", settings)
    assert config.model.temperature == 0.2
    # item r stands at 9 - r in the table that answers, and all ten are wanted by request 0
    inputs = SimpleNamespace(target_request=np.zeros(10, dtype=np.int64), target_item=np.arange(10))
    place = np.arange(10)[::-1]
    return _calibrated(config, [_Asked(Found(), place, inputs, None, None, SIGMA)] * 2)  # type: ignore[arg-type]


def test_the_sharpening_and_the_weight_with_most_targets_win_and_of_equals_the_smaller() -> None:
    assert calibrated(training={"weight_catalog": 0.2}) == (0.7, 0.25)


@pytest.mark.parametrize(
    "settings", [{"training": {"weight_catalog": 0.0}}, {"model": {"item_vectors": False}}]
)
def test_a_model_that_learnt_no_catalogue_wide_score_gets_no_weight(settings: dict[str, Any]) -> None:
    assert calibrated(**settings) == (0.7, 0.0)
