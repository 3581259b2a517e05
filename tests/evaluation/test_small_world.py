"""The whole protocol on the small synthetic world, with requests made by the instruction package itself."""

from datetime import date

import numpy as np
import pytest

from sigma_core import columns as c
from sigma_core.config import profile_config
from sigma_core.data.calendar import load_themes
from sigma_core.data.catalog import CatalogBuilder
from sigma_core.data.events import clean_events
from sigma_core.data.splits import history_until
from sigma_core.data.users import build_user_profiles
from sigma_core.evaluation.baselines import build_baselines
from sigma_core.evaluation.protocol import EvalDay, evaluate_day
from sigma_core.instruction.examples import build_examples
from tests.toy_world import SMALL_CONFIG, SMALL_START, small_source

DAY = date(2024, 10, 24)  # a week before Halloween
CONFIG = profile_config(
    "toy",
    {
        "data": SMALL_CONFIG.model_dump(),
        "evaluation": {"min_targets": 20, "min_users": 10, "sample_users": 40, "lift_users": 10},
    },
)


@pytest.fixture(scope="module")
def report():
    source = small_source()
    products = source.products()
    events, _ = clean_events(source.events(), products[c.ITEM_ID])
    catalog = CatalogBuilder(events, products, CONFIG.data, SMALL_START).day(DAY)
    profiles = build_user_profiles(source.users(), events, DAY)
    examples = build_examples(DAY, events, catalog, profiles, CONFIG, split="test")
    past = history_until(events, DAY)
    baselines = build_baselines(catalog.frame, past, DAY, themes=load_themes())
    stand_in = baselines["personal_decayed"].rank
    return evaluate_day(EvalDay(DAY, catalog.frame, past, examples), stand_in, baselines, CONFIG)


def test_a_day_of_real_requests_is_judged_without_problems(report):
    assert report.problems() == []
    assert report.to_json()["details"]["households"] == 40
    assert report.to_json()["details"]["lift_households"] == 10


def test_the_stand_in_equals_the_baseline_it_is(report):
    for task in report.to_json()["tasks"].values():
        assert task["models"]["sigma"] == task["models"]["personal_decayed"]
        if task["num_targets"] is not None:
            assert task["intervals"]["personal_decayed"]["recall@20"] == [0.0, 0.0]
            assert task["p_values"]["personal_decayed"]["recall@20"] == 1.0


def test_a_category_request_lifts_a_ranker_that_reads_it(report):
    lift = report.to_json()["tasks"]["category"]["instruction_lift"]
    assert lift["seen"]["low"] > 0
    assert np.isclose(lift["seen"]["value"], lift["unseen"]["value"])


def test_informed_opponents_beat_uninformed_ones_where_the_request_says_something(report):
    tasks = report.to_json()["tasks"]
    for name in ("query", "category"):
        assert (
            tasks[name]["models"]["popularity"]["recall@5"]
            > tasks["just_for_you"]["models"]["popularity"]["recall@5"]
        )
    oracle = tasks["query"]["models"]["type_filter_oracle"]["recall@20"]
    assert oracle >= tasks["query"]["models"]["bm25_personal"]["recall@20"]
