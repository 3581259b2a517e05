"""Which task a free instruction is for, and how sure that is: the nearest ways of asking, in the grounded space.

A ridge regression in closed form over the match vectors of each task's seen wordings and of people's own (`spoken_wordings.yaml`).
It learns to look past what is asked for ("ice cream") to how it is asked. The temperature is fitted on wordings left out one at a
time, so that the confidence is a probability one can check. Knows no catalog and no user. Source: our choice; the paper's
instructions come with their task.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from sigma_core.instruction.phrases import name_words
from sigma_core.instruction.tasks import TASKS, TaskError, listed, render
from sigma_core.yaml_files import parse_yaml

SPOKEN_FILE: Final = Path(__file__).parent / "spoken_wordings.yaml"
RIDGE: Final = 0.1  # on squared weights, where a task's wordings weigh 1 together
TEMPERATURES: Final = np.geomspace(0.01, 1.0, 41)
NAMED: Final = ("query", "category")  # both name a thing; which of them, the catalog says

_SLOT: Final = re.compile(r"\{(\w+)\}")
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")


class Route(NamedTuple):
    """What an instruction was taken for.

    Attributes:
        task: the nearest task, whether or not it was followed; "query" stands for any request that names a thing.
        confidence: the probability that it is that task, 0 to 1.
    """

    task: str
    confidence: float


class Wording(NamedTuple):
    """A way of asking for a task: `number` is the same for a wording with other things named in it."""

    task: str
    number: int
    text: str


class TaskRouter:
    """Routes match vectors to tasks.

    Args:
        encode: texts to float [n, D] match vectors (`GroundedEncoder.match_vectors`).
    """

    def __init__(self, encode: Callable[[list[str]], np.ndarray]) -> None:
        """Encode the reference wordings (some 300 short texts) and fit."""
        wordings = reference_wordings()
        self.tasks = tuple(dict.fromkeys(wording.task for wording in wordings))
        label_N = np.array([self.tasks.index(wording.task) for wording in wordings])
        features_ND = _with_bias(np.asarray(encode([wording.text for wording in wordings]), np.float64))
        weight_N = _weights(wordings)
        target_NT = np.eye(len(self.tasks))[label_N]
        inner_DD = features_ND.T @ (features_ND * weight_N[:, None])
        inner_DD[np.diag_indices(len(inner_DD) - 1)] += RIDGE  # the bias is free
        inner_DD[-1, -1] += 1e-9
        solved_DN = np.linalg.solve(inner_DD, features_ND.T * weight_N)
        self._weights_DT = solved_DN @ target_NT
        left_out_NT = _left_out(features_ND @ solved_DN, target_NT, wordings)
        self.temperature = _temperature(left_out_NT, label_N, weight_N)

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """float [n, T]: of each text, the probability of each of `tasks`; rows add up to 1."""
        return _softmax(_with_bias(np.asarray(vectors, np.float64)) @ self._weights_DT / self.temperature)

    def route(self, vector: np.ndarray) -> Route:
        """The nearest task of one text and its probability; those of `NAMED` are one."""
        named, found = 0.0, Route("", 0.0)
        for task, share in zip(self.tasks, self.probabilities(vector[None])[0].tolist(), strict=True):
            if task in NAMED:
                named += share
            elif share > found.confidence:
                found = Route(task, share)
        return found if found.confidence >= named else Route(NAMED[0], min(named, 1.0))


@lru_cache(maxsize=1)
def reference_wordings() -> tuple[Wording, ...]:
    """The seen wordings of every task and people's own, each filled with the examples of `spoken_wordings.yaml`.

    Raises:
        TaskError: the file names an unknown task or slot, or leaves a task out.
    """
    examples, own = _spoken()["examples"], _spoken()["wordings"]
    if own.keys() != TASKS.keys():
        raise TaskError(f"{SPOKEN_FILE.name} has wordings of {sorted(own)}; needed: {sorted(TASKS)}.")
    out: list[Wording] = []
    for name, task in TASKS.items():
        seen = task.seen_wordings()
        out += [Wording(name, n, render(task, n, slots)) for n in seen for slots in _slots(name, examples)]
        out += [
            Wording(name, number, text)
            for number, wording in enumerate(own[name], start=len(seen))
            for text in _filled(wording, examples)
        ]
    return tuple(out)


@lru_cache(maxsize=1)
def telling_words() -> frozenset[str]:
    """Words of the wordings themselves, without what fills them: they tell a task, whatever else they may name ("coupons")."""
    own = (_SLOT.sub(" ", text) for some in _spoken()["wordings"].values() for text in some)
    seen = (_TEMPLATE.sub(" ", task.wordings()[n]) for task in TASKS.values() for n in task.seen_wordings())
    return frozenset(word for text in (*own, *seen) for word in name_words(text))


@lru_cache(maxsize=1)
def _spoken() -> dict[str, Any]:
    values: dict[str, Any] = parse_yaml(SPOKEN_FILE.read_text())
    return values


def _slots(task: str, examples: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Values for a template's slots; a list of names where the template wants one."""
    focus = TASKS[task].focus
    if focus in ("phrase", "category", "holiday"):
        return [{focus: value} for value in examples[focus]]
    if focus == "campaign":
        return [{"offers": value.split(" and ")} for value in examples["offers"]]
    lists = [[], *(value.split(" and ") for value in examples["rising"])]
    seasons = examples["season"] if focus == "season" else [""]
    return [{"season": season, "ramping": some, "rising": some} for season in seasons for some in lists]


def _filled(wording: str, examples: dict[str, list[str]]) -> list[str]:
    slot = _SLOT.search(wording)
    if slot is None:
        return [wording]
    if slot[1] not in examples:
        raise TaskError(
            f"{SPOKEN_FILE.name}: {wording!r} names {slot[1]!r}; there are {listed(sorted(examples))}."
        )
    return [wording.replace(slot[0], value) for value in examples[slot[1]]]


def _weights(wordings: Sequence[Wording]) -> np.ndarray:
    """[N]: the wordings of a task weigh 1 together, each the same whatever it is filled with."""
    filled: dict[tuple[str, int], int] = {}
    for wording in wordings:
        filled[wording[:2]] = filled.get(wording[:2], 0) + 1
    of_task = {task: sum(name == task for name, _ in filled) for task in TASKS}
    return np.array([1 / filled[wording[:2]] / of_task[wording.task] for wording in wordings])


def _left_out(hat_NN: np.ndarray, target_NT: np.ndarray, wordings: Sequence[Wording]) -> np.ndarray:
    """[N, T]: what the regression without a wording says of it, exactly: residuals over 1 - H within the wording."""
    out = np.empty_like(target_NT)
    residual_NT = target_NT - hat_NN @ target_NT
    places: dict[tuple[str, int], list[int]] = {}
    for place, wording in enumerate(wordings):
        places.setdefault(wording[:2], []).append(place)
    for rows in places.values():
        own = np.eye(len(rows)) - hat_NN[np.ix_(rows, rows)]
        out[rows] = target_NT[rows] - np.linalg.solve(own, residual_NT[rows])
    return out


def _temperature(scores_NT: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray) -> float:
    """The one of `TEMPERATURES` under which the left-out wordings are most probable."""
    rows = np.arange(len(label_N))
    losses = [
        -(weight_N * np.log(_softmax(scores_NT / t)[rows, label_N] + 1e-12)).sum() for t in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def _with_bias(vectors: np.ndarray) -> np.ndarray:
    return np.concatenate((vectors, np.ones((len(vectors), 1))), axis=1)


def _softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    out: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return out
