"""An ablation's differences: how likely chance makes one of so many, in the JSON and in words."""

from typing import Any

import numpy as np
import pytest

from sigma_core.benchmarks.ablation_report import ArmResult, ablation_values
from sigma_core.benchmarks.ablation_text import ablation_markdown
from sigma_core.benchmarks.arms import ARMS
from sigma_core.evaluation.protocol import DayJudge
from sigma_core.evaluation.significance import holm
from tests.evaluation.toy_evaluation import CONFIG, eval_day


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    judge = DayJudge(eval_day(), CONFIG)

    def result(name: str, seed: int) -> ArmResult:
        rng, lists = np.random.default_rng(seed), {}
        for task, plan in judge.plan.tasks.items():
            rows = np.full((len(plan.requests), 20), -1, np.int32)
            for row in rows:
                row[:2] = rng.permutation(judge.num_items)[:2]
            lists[task] = rows, np.where(rows >= 0, 0.5, 0.0)
        return ArmResult(ARMS[name], 0, {}, lists)

    results = {name: [result(name, seed)] for seed, name in enumerate(("sigma", "gr_id", "no_kd"))}
    return ablation_values(judge, results, {}, {})


def test_p_is_corrected_over_all_arms_and_tasks_of_a_metric(values: dict[str, Any]) -> None:
    cells = {
        f"{arm}|{task}": metrics["recall@20"]
        for arm, by_task in values["differences"].items()
        for task, metrics in by_task.items()
        if metrics["recall@20"]["p"] is not None
    }
    assert {key.split("|")[0] for key in cells} == {"gr_id", "no_kd"}
    expected = holm({key: cell["p"] for key, cell in cells.items()})
    assert {key: cell["p_holm"] for key, cell in cells.items()} == pytest.approx(expected, abs=1e-4)
    assert any(cell["p_holm"] > cell["p"] for cell in cells.values())


def test_the_report_says_p_and_how_many_intervals_chance_may_move(values: dict[str, Any]) -> None:
    more = {
        "dates": ["2024-03-05"],
        "seeds": [0],
        "settings": {"households": 3, "steps": 1, "grounding_seed": 0},
    }
    said = ablation_markdown({**values, **more}, {})
    num = 2 * len(values["tasks"])
    assert "p is Holm-corrected over all arms and tasks" in said
    assert ", p 1.0000" in said
    assert f"of the {num} intervals of this table about {num * 0.05:.0f} would exclude 0 by chance" in said
