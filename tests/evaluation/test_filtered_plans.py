"""Confined rows: who is asked, what nobody may list, and that the report has them."""

import numpy as np
import pytest

from sigma_core import columns as c
from sigma_core.evaluation.baselines import build_baselines
from sigma_core.evaluation.filtered_plans import COLD, FILTERED, filtered_plans
from sigma_core.evaluation.protocol import DayJudge, evaluate_day
from tests.evaluation.toy_evaluation import CONFIG, DIA_C, ICE_A, ICE_B, eval_day, fake_encode, history
from tests.toy_world import TOY_DAY, toy_catalog


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
