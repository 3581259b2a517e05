"""Means over seeds, pooled days, calibration error, and the tables of a backtest, all by hand."""

from datetime import date

import numpy as np
import pytest

from sigma_core.benchmarks.arm_scores import (
    BINS,
    Calibration,
    compare_calibration,
    differences,
    intervals,
    list_sums,
    mean_sums,
    pooled,
)
from sigma_core.benchmarks.backtest_values import Enough, TaskSums, backtest_markdown, backtest_values
from sigma_core.evaluation.metrics import Ratio
from sigma_core.evaluation.protocol import DayJudge
from tests.evaluation.toy_evaluation import CONFIG, DIA_A, DIA_B, DIA_C, ICE_A, eval_day


def ratio(num: list[float], den: list[float]) -> Ratio:
    return Ratio(np.array(num, float), np.array(den, float))


def test_sums_are_averaged_over_seeds_before_households_are_drawn() -> None:
    one = {"all": {"recall@20": ratio([2, 0], [2, 2])}}
    two = {"all": {"recall@20": ratio([0, 2], [2, 2])}}
    mean = mean_sums([one, two])["all"]
    assert mean["recall@20"].num.tolist() == [1, 1]
    found = intervals(mean, 200, 0)["recall@20"]
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.5, 0.5)


def test_a_metric_without_targets_has_no_number() -> None:
    empty = {"recall@20": ratio([0, 0], [0, 0]), "ndcg@20": ratio([1, 1], [1, 1])}
    assert intervals(empty, 100, 0)["recall@20"] == {"mean": None, "low": None, "high": None}
    assert differences(empty, empty, 100, 0)["ndcg@20"]["mean"] == 0


def test_a_households_days_are_pooled_together() -> None:
    days = [
        (["a", "b"], {"recall@20": ratio([1, 0], [2, 1])}),
        (["b", "c"], {"recall@20": ratio([1, 3], [1, 4])}),
    ]
    found = pooled(days)["recall@20"]
    assert found.num.tolist() == [1, 1, 3]
    assert found.den.tolist() == [2, 2, 4]


def test_lists_become_sums_on_all_targets_and_on_parts() -> None:
    judge = DayJudge(eval_day(), CONFIG)
    plan = judge.plan.tasks["just_for_you"]  # u1: dia_b, ice_a; u3: dia_a; u4: dia_c
    rows = np.full((3, 20), -1, np.int32)
    rows[:, 0] = [ICE_A, DIA_B, DIA_C]
    sums = list_sums(judge, plan, rows)
    assert sums["all"]["recall@20"].num.tolist() == [1, 0, 1]
    assert sums["repeat"]["recall@20"].den.tolist() == [1, 1, 0]
    assert sums["cold"]["recall@20"].num.tolist() == [0, 0, 1]


def test_calibration_error_is_probability_in_the_wrong_place() -> None:
    judge = DayJudge(eval_day(), CONFIG)
    plan = judge.plan.tasks["just_for_you"]
    rows = np.full((3, 20), -1, np.int32)
    rows[:, 0] = [ICE_A, DIA_A, DIA_C]
    scores = np.zeros((3, 20), np.float32)
    scores[:, 0] = [0.5, 1.0, 1.0]  # u1 has two targets: ice_a is half of them
    right = Calibration(plan, rows, scores)
    assert np.abs(right.gap_HB).sum() == 0
    assert right.gap_HB.shape == (3, BINS)
    rows[:, 0] = [DIA_C, DIA_B, ICE_A]
    wrong = Calibration(plan, rows, scores)
    found = compare_calibration([wrong], [right], 200, 0)
    assert found["mean"] == pytest.approx(2.5 / 3)
    assert found["low"] is not None
    assert 0.5 <= found["low"] <= 2.5 / 3


def test_chance_alone_makes_an_error_and_the_interval_is_corrected_for_it() -> None:
    """An item a list, taken with .3; its probability is right, or .3 too high. Each list lies in one of ten bins."""
    rng = np.random.default_rng(4)

    def judged(error: float) -> dict[str, float]:
        one = Calibration.__new__(Calibration)
        one.lists_H, one.gap_HB = np.ones(200), np.zeros((200, BINS))
        one.gap_HB[np.arange(200), np.arange(200) % BINS] = error + 0.3 - (rng.random(200) < 0.3)
        return {name: value or 0.0 for name, value in compare_calibration([one], None, 200, 0).items()}

    perfect = [judged(0.0) for _ in range(20)]
    mean = {name: np.mean([found[name] for found in perfect]) for name in perfect[0]}
    assert mean["mean"] == pytest.approx(mean["noise"], rel=0.1)
    assert (mean["low"] + mean["high"]) / 2 < 0.75 * mean[
        "mean"
    ]  # not above the error, as plain percentiles are
    wrong = [judged(0.3) for _ in range(20)]
    assert sum(found["low"] <= 0.3 <= found["high"] for found in wrong) >= 17
    assert all(found["noise"] < found["low"] for found in wrong)


def test_days_are_pooled_by_role_and_the_strongest_opponent_is_no_oracle() -> None:
    def day(sigma: list[float], other: list[float]) -> dict[str, TaskSums]:
        def of(num: list[float]) -> dict[str, Ratio]:
            return {"recall@20": ratio(num, [4, 4, 4]), "new/recall@20": ratio(num, [4, 4, 4])}

        models = {"sigma": of(sigma), "ease": of(other), "knn": of([0, 0, 0]), "oracle": of([4, 4, 4])}
        return {"just_for_you": TaskSums(["a", "b", "c"], models, frozenset({"oracle"}))}

    days = {
        date(2017, 2, 6): day([2, 2, 2], [1, 1, 1]),
        date(2017, 10, 23): day([4, 4, 4], [2, 2, 2]),
        date(2017, 4, 8): day([0, 1, 0], [3, 3, 3]),
    }
    values = backtest_values(days, 200, 0, enough=Enough(5, 2))
    judged = values["pooled"]["judge"]
    assert judged["dates"] == ["2017-02-06", "2017-10-23"]
    task = judged["tasks"]["just_for_you"]
    assert task["strongest"] == "ease"
    assert task["models"]["sigma"]["recall@20"]["mean"] == 0.75
    assert task["differences"]["ease"]["recall@20"]["mean"] == pytest.approx(0.375)
    assert task["differences"].keys() == {"ease", "knn"}
    assert task["part_differences"]["ease"]["new/recall@20"]["mean"] == pytest.approx(0.375)
    assert values["pooled"]["choose"]["tasks"]["just_for_you"]["differences"]["ease"]["recall@20"]["mean"] < 0
    assert "## Pooled, judge: 2017-02-06, 2017-10-23" in backtest_markdown(values)
