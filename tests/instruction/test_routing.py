"""The router of free words: exact left-out scores, probabilities, one answer for things that are named; by words alone here.

With the real encoder it is judged in `tests/e2e/test_serving.py`.
"""

import zlib

import numpy as np
import pytest

from sigma_core.instruction import routing
from sigma_core.instruction.phrases import name_words
from sigma_core.instruction.routing import TaskRouter, Wording, reference_wordings, telling_words
from sigma_core.instruction.tasks import TASKS, TaskError

WIDTH = 256


def bags(texts: list[str]) -> np.ndarray:
    """Unit bags of hashed words."""
    out = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in enumerate(texts):
        for word in name_words(text):
            out[row, zlib.crc32(word.encode()) % WIDTH] += 1
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


@pytest.fixture(scope="module")
def router() -> TaskRouter:
    return TaskRouter(bags)


def test_no_held_out_wording_is_a_reference() -> None:
    told = {wording.text for wording in reference_wordings()}
    assert {wording.task for wording in reference_wordings()} == set(TASKS)
    for task in TASKS.values():
        for number in task.held_out_wordings():
            start = task.wordings()[number].partition("{")[0]
            assert not any(text.startswith(start) for text in told if len(start) > 8)


def test_words_that_tell_a_task_are_those_of_the_wordings_not_of_what_fills_them() -> None:
    assert {"coupons", "season", "surprise"} <= telling_words()
    assert not {"cola", "coffee", "halloween", "phrase", "listed"} & telling_words()


def test_probabilities_add_up_and_known_wordings_find_their_task(router: TaskRouter) -> None:
    wordings = reference_wordings()
    found = router.probabilities(bags([wording.text for wording in wordings]))
    assert np.allclose(found.sum(axis=1), 1)
    right = [router.tasks[row.argmax()] == wording.task for row, wording in zip(found, wordings, strict=True)]
    assert np.mean(right) > 0.95
    assert router.route(bags(["surprise me"])[0]).task == "discover"


def test_a_text_that_says_nothing_known_is_no_task_for_sure(router: TaskRouter) -> None:
    assert router.route(np.zeros(WIDTH, np.float32)).confidence < 0.6


def test_things_that_are_named_count_together(router: TaskRouter) -> None:
    vector = bags(["show me ice cream, which coffee do you have"])[0]
    shares = dict(zip(router.tasks, router.probabilities(vector[None])[0], strict=True))
    route = router.route(vector)
    assert route.task == "query"
    assert route.confidence == pytest.approx(shares["query"] + shares["category"])


def test_what_is_said_of_a_left_out_wording_is_what_a_router_without_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Residual over 1 - H inside the wording, against leaving it out and solving again, weights of the others unchanged."""
    rng = np.random.default_rng(3)
    wordings = [Wording(task, n // 2, f"{task} {n}") for task in ("query", "season") for n in range(6)]
    x = routing._with_bias(rng.normal(size=(12, 5)))
    target = np.eye(2)[[0] * 6 + [1] * 6]
    weight = routing._weights(wordings)
    penalty = np.diag([*[routing.RIDGE] * 5, 0.0])

    def fit(rows: np.ndarray) -> np.ndarray:
        part = x[rows]
        return np.linalg.solve(part.T @ (part * weight[rows, None]) + penalty, (part.T * weight[rows]))

    every = np.arange(12)
    got = routing._left_out(x @ fit(every), target, wordings)
    for start in range(0, 12, 2):
        rest = np.delete(every, [start, start + 1])
        want = x[start : start + 2] @ fit(rest) @ target[rest]
        assert np.allclose(got[start : start + 2], want)


def test_wordings_with_an_unknown_slot_or_without_a_task_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskError, match="names 'colour'"):
        routing._filled("something in {colour}", {"phrase": ["x"]})
    broken = {"examples": {}, "wordings": {"query": ["x"]}}
    monkeypatch.setattr(routing, "_spoken", lambda: broken)
    with pytest.raises(TaskError, match="needed"):
        reference_wordings.__wrapped__()
