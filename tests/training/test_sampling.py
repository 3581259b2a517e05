"""What of a training set a step holds: how often users come, which of their requests are picked, what their targets weigh."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from sigma_core.config import TrainingConfig
from sigma_core.instruction.collate import UserContext
from sigma_core.training.batches import StepInputs, TrainingRequest, TrainingSet, TrainingUser, sample_steps

PREFIXES = np.array([[0], [1], [2], [3]])


def person(name: str, *requests: TrainingRequest) -> TrainingUser:
    """A user without history."""
    rows, stats = np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32)
    return TrainingUser(UserContext(name, "", rows, stats, rows, stats), requests)


def asks(task: str, *targets: int) -> TrainingRequest:
    return TrainingRequest(task, task, "", np.array(targets))


def steps_of(users: list[TrainingUser], steps: int, **training: Any) -> list[StepInputs]:
    """Steps of one user and one request each, unless `training` says otherwise."""
    config = TrainingConfig(**{"contexts_per_batch": 1, "branches_per_context": 1} | training)
    data = TrainingSet(users, 0, np.zeros((1, 4, 4), dtype=np.float32))
    return list(sample_steps(data, PREFIXES, config, steps, seed=7))


def test_a_target_weighs_one_over_the_root_of_its_requests_targets() -> None:
    (step,) = steps_of([person("u", asks("query", 0, 1, 2, 3), asks("season", 2))], 1, branches_per_context=2)
    weights = dict(zip(step.target_request.tolist(), step.target_weight.tolist(), strict=True))
    names = [request.instruction for request in step.requests[0]]
    assert {names[number]: weight for number, weight in weights.items()} == {"query": 0.5, "season": 1.0}
    assert sorted(step.target_weight.tolist()) == [0.5] * 4 + [1.0]


def test_a_request_is_picked_by_its_tasks_weight_shared_among_the_tasks_requests() -> None:
    """Weights 6 and 2: three draws in four are of the first task, though it has one request and the other two."""
    user = person("u", asks("query", 0), asks("category", 1), asks("category", 2))
    steps = steps_of([user], 2000, task_weights={"query": 6.0, "category": 2.0})
    picked = Counter(int(step.target_item[0]) for step in steps)
    assert picked[0] / 2000 == pytest.approx(0.75, abs=0.03)  # three standard deviations
    assert picked[1] / 2000 == pytest.approx(0.125, abs=0.03)


def test_users_of_a_rare_task_come_more_often_and_at_most_four_times_an_epoch() -> None:
    """Twenty users; a task is rare below a fifth of them, four. Two have "season": twice. One has "holiday": four times."""
    common = asks("query", 0)
    rare = [person("s1", common, asks("season", 1)), person("s2", common, asks("season", 1))]
    users = [*rare, person("h", common, asks("holiday", 2)), *(person(f"u{n}", common) for n in range(17))]
    epoch = 2 * 2 + 4 + 17
    came = Counter(step.users[0].user_id for step in steps_of(users, epoch))
    assert came == {"s1": 2, "s2": 2, "h": 4} | {f"u{n}": 1 for n in range(17)}
    crowd = users + [
        person(f"v{n}", common) for n in range(20)
    ]  # a fifth is eight now: eight times would be too often
    came = Counter(step.users[0].user_id for step in steps_of(crowd, 2 * 4 + 4 + 37))
    assert came == {"s1": 4, "s2": 4, "h": 4} | {name: 1 for name in came if name[0] in "uv"}
    assert len(came) == 40
