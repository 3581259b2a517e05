"""The table of arms: names, groups, what each changes."""

import pytest

from sigma_assets.benchmarks.arm_answers import reworded
from sigma_core.benchmarks.arms import ARMS, HEADLINE, PAPER_RATIOS, SIGMA, chosen_arms
from sigma_core.config import SigmaConfig
from sigma_core.evaluation.protocol import DayJudge
from sigma_core.instruction.tasks import TASKS
from tests.evaluation.toy_evaluation import CONFIG, eval_day


def test_every_task_has_a_specialist_and_every_paper_row_an_arm() -> None:
    assert {f"only_{task}" for task in TASKS} <= ARMS.keys()
    assert set(HEADLINE) == {SIGMA, *PAPER_RATIOS}


def test_an_arm_comes_with_what_it_is_compared_with_in_the_tables_order() -> None:
    assert [arm.name for arm in chosen_arms(["wrong_words"])] == ["sigma", "open", "wrong_words"]
    assert [arm.name for arm in chosen_arms(["headline"])] == list(HEADLINE)
    assert len(chosen_arms(["all"])) == len(ARMS)


def test_an_unknown_arm_is_refused_with_all_names() -> None:
    with pytest.raises(ValueError, match=r"unknown arms \['gr_sidd'\]; there are all, headline, sigma"):
        chosen_arms(["gr_sidd"])


def test_settings_of_arms_exist_and_one_of_another_release_is_named() -> None:
    config = SigmaConfig()
    assert [name for name, arm in ARMS.items() if arm.lacks(config)] == []
    arm = ARMS["no_pointer"]
    assert arm.lacks(config) == ""
    assert type(arm)("x", "x", {"model": {"wings": 2}}).lacks(config) == "model.wings"


def test_an_arms_unseen_words_are_those_of_the_evaluation() -> None:
    judge = DayJudge(eval_day(), CONFIG)
    (arm,) = (arm for arm in ARMS.values() if arm.words == "unseen")
    for plan in judge.plan.tasks.values():
        for row, number in zip(plan.lifted, plan.unseen, strict=True):
            ours = reworded(plan.requests[row], arm, CONFIG.runtime.seed)
            assert ours.instruction == judge.plan.asked[number].instruction
