"""Confined rows: who is asked, what nobody may list, and that the report has them."""

import numpy as np
import pytest

from sigma_core import columns as c
from sigma_core.evaluation.baselines import build_baselines
from sigma_core.evaluation.filtered_plans import COLD, FILTERED, filtered_plans
from sigma_core.evaluation.protocol import DayJudge, evaluate_day
from sigma_core.evaluation.request_plan import NOTHING, RequestPlan, TaskPlan
from sigma_core.evaluation.requests import EvalRequest
from tests.evaluation.toy_evaluation import CONFIG, DIA_C, ICE_A, ICE_B, eval_day, fake_encode, history
from tests.toy_world import TOY_DAY, toy_catalog

USERS = [f"u{n:03d}" for n in range(100)]


@pytest.fixture(scope="module")
def plans():
    judge = DayJudge(eval_day(), CONFIG)
    return filtered_plans(judge.plan, toy_catalog().frame, frozenset(judge.users))


def test_lists_are_confined_to_the_category_the_tail_and_launches(plans):
    catalog = toy_catalog().frame
    everything = np.arange(catalog.height)
    (category,) = plans["category"].requests
    assert np.setdiff1d(everything, category.exclude).tolist() == [ICE_A, ICE_B]
    tail = np.flatnonzero(catalog[c.IS_TAIL].to_numpy())
    (longtail,) = plans["longtail"].requests
    assert set(np.setdiff1d(everything, longtail.exclude)) <= set(tail)
    (cold,) = plans[COLD].requests
    assert np.setdiff1d(everything, cold.exclude).tolist() == [DIA_C]
    assert (cold.user_id, cold.targets.tolist()) == ("u4", [DIA_C])


def test_which_of_a_households_categories_is_asked_does_not_hang_on_its_name():
    targets = np.array([ICE_A], np.int32)

    def asked(user: str) -> list[EvalRequest]:
        return [
            EvalRequest(user, "category", f"show {name}", name, {"category": name}, NOTHING, targets)
            for name in ("bakery", "dairy", "wine")
        ]

    def chosen(requests: list[EvalRequest]) -> list[tuple[str, str]]:
        task = TaskPlan(requests, *[None] * 8)  # type: ignore[arg-type]
        plans = filtered_plans(RequestPlan([], {"category": task}), toy_catalog().frame, frozenset(USERS))
        return [(r.user_id, r.focus) for r in plans["category"].requests]

    everybody = [request for user in USERS for request in asked(user)]
    found = chosen(everybody)
    assert [user for user, _ in found] == USERS
    counts = {name: [focus for _, focus in found].count(name) for name in ("bakery", "dairy", "wine")}
    assert all(20 <= count <= 47 for count in counts.values()), counts  # of 100, a third each
    assert chosen(everybody[::-1]) == found


def test_only_chosen_households_are_asked():
    judge = DayJudge(eval_day(), CONFIG)
    nobody = filtered_plans(judge.plan, toy_catalog().frame, frozenset())
    assert {name: plan.requests for name, plan in nobody.items()} == {name: [] for name in FILTERED}


def test_the_report_holds_them_with_the_opponents_of_new_items():
    baselines = build_baselines(toy_catalog().frame, history(), TOY_DAY, themes={}, encode=fake_encode)
    report = evaluate_day(eval_day(), baselines["popularity"].rank, baselines, CONFIG)
    cold = report.to_json()["filtered"][COLD]
    assert {"category_popularity", "category_personal", "text_neighbors", "ease"} <= cold["models"].keys()
    assert cold["models"]["popularity"]["recall@20"] == 1.0
    assert "tifu_knn" not in cold["models"]
    filled = {"personal_frequency_filled", "personal_decayed_filled", "type_personal"}
    assert filled <= cold["models"].keys()
    assert (
        not {"personal_frequency", "personal_decayed"} & cold["models"].keys()
    )  # these list only what was bought before
    assert all(
        cold["models"][name]["recall@20"] == 1.0 for name in filled
    )  # u4 never bought it: popularity goes on
    assert "category_popularity" not in report.to_json()["tasks"]["just_for_you"]["models"]
    assert "cold, confined" in report.markdown()
    assert report.problems() == []
