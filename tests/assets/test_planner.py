from collections import Counter
from datetime import date

import pytest

from sigma_assets.periods import SELECT, Span, as_date
from sigma_assets.planner import PlanError, Step, evaluation_days, first_day, plan_day
from sigma_assets.stages import STAGES

SPAN = Span(date(2017, 1, 1), date(2018, 1, 1))


def test_a_day_needs_each_partition_once_after_its_inputs() -> None:
    steps = plan_day(date(2017, 10, 23), SPAN)
    assert len(steps) == len(set(steps))
    position = {step: number for number, step in enumerate(steps)}
    for step in steps:
        for read in step.stage.reads.values():
            for key in SELECT[read.window](as_date(step.partition), SPAN):
                assert position[Step(read.asset, key)] < position[step]


def test_a_day_needs_exactly_this() -> None:
    steps = plan_day(date(2017, 10, 23), SPAN)
    number = Counter(step.asset for step in steps)
    assert number["interaction_events"] == 296  # 1 January to 23 October
    assert number["interaction_history"] == 9  # October is not over
    shards = [step.partition for step in steps if step.asset == "sft_shards"]
    assert number["sft_shards"] == len(SELECT["base_shards"](date(2017, 10, 1), SPAN)) + 7
    assert max(shards) <= "2017-10-22"
    single = set(STAGES) - {
        "interaction_events",
        "interaction_history",
        "item_catalog",
        "user_profiles",
        "sft_shards",
    }
    reports = {"eval_report", "ablation_report"}
    assert all(number[asset] == 1 for asset in single - reports)
    assert not reports & set(number)


def test_nothing_after_the_day_is_planned() -> None:
    for day in (date(2017, 2, 6), date(2017, 10, 1), date(2017, 12, 17)):
        assert all(step.partition <= day.isoformat() for step in plan_day(day, SPAN))


@pytest.mark.parametrize(
    ("day", "said"),
    [
        (date(2018, 6, 1), "2017-01-01 to 2018-01-01"),
        (date(2017, 1, 20), "earliest possible day is 2017-02-0"),
    ],
)
def test_a_day_that_cannot_be_made_says_which_can(day: date, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan_day(day, SPAN)


def test_the_earliest_day_of_the_tasks_page_can_be_made() -> None:
    first = first_day(SPAN)
    assert first is not None
    assert first <= date(2017, 2, 6)
    assert plan_day(date(2017, 2, 6), SPAN)


def test_judging_needs_the_days_after_and_says_when_there_are_none() -> None:
    assert [s.partition for s in evaluation_days(date(2017, 12, 25), 3, SPAN)] == [
        "2017-12-26",
        "2017-12-27",
        "2017-12-28",
    ]
    with pytest.raises(PlanError, match=r"until 2018-01-04; the source ends 2018-01-01.*2017-12-25"):
        evaluation_days(date(2017, 12, 28), 7, SPAN)
