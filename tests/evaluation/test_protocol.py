"""The protocol on the toy world: which questions are asked, and what a known ranker gets for its answers."""

import json

import numpy as np
import pytest

from sigma_core.evaluation.baselines import Baseline, build_baselines
from sigma_core.evaluation.metrics import METRICS, RATIO_METRICS
from sigma_core.evaluation.protocol import correct_p_values, evaluate_day
from sigma_core.evaluation.request_plan import choose_users, plan_requests
from sigma_core.evaluation.requests import NO_ITEM
from sigma_core.instruction.tasks import TASKS, render
from tests.evaluation.toy_evaluation import (
    CONFIG,
    DIA_A,
    DIA_B,
    DIA_C,
    ICE_A,
    ICE_B,
    eval_day,
    examples,
    fake_encode,
    history,
    taken,
)
from tests.toy_world import TOY_DAY, toy_catalog

ALL = ["u1", "u3", "u4"]


def plan(lift_users=("u1",), users=ALL):
    return plan_requests(
        examples().examples, toy_catalog().frame, taken(), users=users, lift_users=lift_users, seed=1
    )


def perfect(requests):
    """The targets of each request first, when it is asked in the words of its own task; nothing otherwise."""
    out = np.full((len(requests), 20), NO_ITEM, np.int32)
    for row, request in zip(out, requests, strict=True):
        if request.task != "just_for_you" or request.instruction == render("just_for_you", 0, {}):
            row[: len(request.targets)] = request.targets
    return out


def deaf(requests):
    """The same list whatever is said, but for what the request excludes."""
    out = np.full((len(requests), 20), NO_ITEM, np.int32)
    for row, request in zip(out, requests, strict=True):
        kept = [i for i in range(5) if i not in request.exclude]
        row[: len(kept)] = kept
    return out


@pytest.fixture(scope="module")
def baselines():
    return build_baselines(
        toy_catalog().frame, history(), TOY_DAY, themes={}, encode=fake_encode,
        answers=lambda r: np.array([ICE_A], np.int32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(baselines):
    return evaluate_day(eval_day(), perfect, baselines, CONFIG)


# ------------------------------------------------------------------------------------- questions
def test_every_question_is_asked_once_and_a_users_stand_together():
    asked = plan().asked
    keys = [(r.user_id, r.instruction, r.focus, tuple(r.exclude)) for r in asked]
    assert len(set(keys)) == len(keys)
    assert [r.user_id for r in asked] == sorted(r.user_id for r in asked)


def test_the_just_for_you_wording_of_all_tasks_is_one_question():
    found = plan()
    general = found.tasks["just_for_you"].asked[0]
    assert found.tasks["query"].plain.tolist() == [general, general]
    assert found.tasks["holiday"].plain.tolist() == [general]
    assert found.tasks["discover"].plain.tolist() == [general]  # the lift knows no history filter


def test_the_lift_asks_three_wordings_of_the_same_row():
    found = plan()
    query = found.tasks["query"]
    assert query.lifted.tolist() == [0, 1]
    for at, plain, unseen in zip(query.lifted, query.plain, query.unseen, strict=True):
        seen = query.requests[at]
        assert found.asked[plain].instruction == render("just_for_you", 0, {})
        assert found.asked[plain].focus == ""
        held_out = [render("query", w, seen.slots) for w in TASKS["query"].held_out_wordings()]
        assert found.asked[unseen].instruction in held_out
        assert found.asked[unseen].focus == seen.focus
    assert query.right.tolist() == query.asked.tolist()
    assert plan(lift_users=()).tasks["query"].lifted.tolist() == []


def test_the_lift_is_measured_without_the_filter_of_the_task():
    found = plan()
    discover = found.tasks["discover"]
    assert discover.requests[0].exclude.size > 0
    assert discover.right.tolist() != discover.asked.tolist()
    for at in (*discover.right, *discover.plain, *discover.unseen):
        assert found.asked[at].exclude.size == 0


def test_history_filters_are_those_of_the_task():
    by_task = {(r.user_id, name): r for name, p in plan().tasks.items() for r in p.requests}
    assert by_task["u1", "just_for_you"].exclude.tolist() == []
    assert by_task["u4", "longtail"].exclude.tolist() == [DIA_A, DIA_B]
    assert by_task["u1", "discover"].exclude.tolist() == [ICE_A, ICE_B]
    assert by_task["u1", "just_for_you"].targets.tolist() == [DIA_B, ICE_A]


def test_users_outside_the_sample_are_not_asked_about():
    assert {r.user_id for r in plan(users=["u3"]).asked} == {"u3"}


def test_a_sample_is_chosen_by_hash_and_nested():
    everyone = [f"u{i}" for i in range(100)]
    assert choose_users(everyone, None, 1) == sorted(everyone)
    ten, twenty = choose_users(everyone, 10, 1), choose_users(everyone[::-1], 20, 1)
    assert len(ten) == 10
    assert set(ten) < set(twenty)
    assert ten != choose_users(everyone, 10, 2)


# --------------------------------------------------------------------------------------- numbers
def test_a_perfect_ranker_reaches_the_ceiling_and_the_headline_counts_add_up(report):
    task = report.to_json()["tasks"]["just_for_you"]
    assert (task["num_targets"], task["num_households"], task["ceiling@20"]) == (4, 3, 1.0)
    assert task["models"]["sigma"]["recall@20"] == 1.0
    assert task["models"]["sigma"]["ndcg@20"] == 1.0
    assert report.to_json()["catalog"] == {"items": 5, "targets": 4, "targets_outside": 1}
    assert report.to_json()["as_of"] == "2024-03-05"


def test_a_baseline_gets_what_its_lists_deserve(report):
    models = report.to_json()["tasks"]["just_for_you"]["models"]
    assert (
        models["personal_frequency"]["recall@20"] == 2 / 4
    )  # u1 ice_a and u3 dia_a; u1 dia_b and u4 dia_c are new
    assert models["popularity"]["recall@1"] == 1 / 4  # dia_a for u3
    assert models["popularity"]["recall@20"] == 1.0
    assert models["personal_frequency"]["macro_recall@20"] == 0.5  # 1/2, 1, 0
    assert models["popularity"]["coverage@20"] == 1.0


def test_rows_split_the_targets(report):
    values = report.to_json()
    assert values["details"]["row_targets"]["just_for_you"] == {"repeat": 2, "new": 2, "cold": 1}
    rows = values["tasks"]["just_for_you"]["rows"]
    assert rows["repeat"]["personal_frequency"]["recall@20"] == 1.0
    assert rows["new"]["personal_frequency"]["recall@20"] == 0.0
    assert rows["cold"]["sigma"]["recall@20"] == 1.0
    assert values["tasks"]["discover"]["rows"]["repeat"]["sigma"]["recall@20"] is None


def test_queries_by_a_phrase_that_was_never_trained_on_have_a_row_of_their_own(report):
    values = report.to_json()
    assert values["details"]["row_targets"]["query"]["unseen_phrase"] == 1  # "frozen treat", not "diapers"
    assert values["tasks"]["query"]["rows"]["unseen_phrase"]["type_filter_oracle"]["recall@20"] == 1.0
    assert "unseen_phrase" not in values["tasks"]["category"]["rows"]
    assert "query, unseen_phrase" in report.markdown()


def test_the_right_words_lift_a_ranker_that_listens(baselines):
    """It finds every target when asked in the words of the task, and nothing when asked for just anything."""

    def listens(requests):
        out = perfect(requests)
        out[[r.task == "just_for_you" for r in requests]] = NO_ITEM
        return out

    tasks = evaluate_day(eval_day(), listens, baselines, CONFIG).to_json()["tasks"]
    assert tasks["just_for_you"]["instruction_lift"] is None
    for name in ("query", "category", "discover", "longtail", "holiday"):
        whole = {"value": 1.0, "low": 1.0, "high": 1.0}
        assert tasks[name]["instruction_lift"] == {"seen": whole, "unseen": whole}, name


def test_words_do_not_lift_a_deaf_ranker(baselines):
    tasks = evaluate_day(eval_day(), deaf, baselines, CONFIG).to_json()["tasks"]
    for name in ("query", "category", "discover", "longtail", "holiday"):
        assert tasks[name]["instruction_lift"]["seen"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_an_undefined_task_is_there_and_null(report):
    task = report.to_json()["tasks"]["season"]
    assert set(report.to_json()["tasks"]) == set(TASKS)
    assert task["num_targets"] is None
    assert task["models"]["sigma"] == dict.fromkeys(METRICS)
    assert task["instruction_lift"]["seen"] == {"value": None, "low": None, "high": None}
    assert "bm25_season" in task["models"]
    assert "type_filter_oracle" not in task["models"]


def test_the_oracle_is_shown_and_never_compared_with(report):
    task = report.to_json()["tasks"]["query"]
    assert "type_filter_oracle" in task["models"]
    assert "type_filter_oracle" not in task["intervals"]
    assert (
        set(task["intervals"])
        == set(task["p_values"])
        == set(task["models"]) - {"sigma", "type_filter_oracle"}
    )


def test_every_difference_has_an_interval_and_coverage_has_none(report):
    for values in report.to_json()["tasks"]["just_for_you"]["intervals"].values():
        assert values["coverage@20"] is None
        for metric in RATIO_METRICS:
            low, high = values[metric]
            assert low <= high


def test_p_values_are_corrected_over_tasks_and_baselines_of_one_metric():
    nothing = dict.fromkeys(METRICS)
    tasks = {
        "a": {"p_values": {"x": nothing | {"recall@20": 0.01}, "y": nothing | {"recall@20": 0.04}}},
        "b": {"p_values": {"x": nothing | {"recall@20": 0.03, "ndcg@10": 0.02}, "y": dict(nothing)}},
    }
    correct_p_values(tasks)
    assert tasks["a"]["p_values"]["x"]["recall@20"] == pytest.approx(0.03)
    assert tasks["a"]["p_values"]["y"]["recall@20"] == pytest.approx(0.06)
    assert tasks["b"]["p_values"]["x"] == nothing | {"recall@20": pytest.approx(0.06), "ndcg@10": 0.02}
    assert tasks["b"]["p_values"]["y"] == nothing


def test_few_targets_make_a_task_underpowered(baselines):
    strict = CONFIG.model_copy(
        update={"evaluation": CONFIG.evaluation.model_copy(update={"min_targets": 5, "min_users": 1})}
    )
    tasks = evaluate_day(eval_day(), perfect, baselines, strict).to_json()["tasks"]
    assert tasks["just_for_you"]["underpowered"] is True


def test_the_same_day_gives_the_same_digest_and_progress_is_told(report, baselines):
    told = []
    again = evaluate_day(
        eval_day(), perfect, baselines, CONFIG, lambda done, total, text: told.append((done, total))
    )
    assert again.digest() == report.digest()
    assert told[0] == (0, len(baselines) + 2)
    assert told[-1] == (len(baselines) + 2, len(baselines) + 2)


def test_sigma_is_called_once(baselines):
    calls = []

    def counting(requests):
        calls.append(len(requests))
        return perfect(requests)

    evaluate_day(eval_day(), counting, baselines, CONFIG)
    assert len(calls) == 1


def test_a_cheating_ranker_is_stopped():
    def cheat(requests):
        return np.tile(np.array([[ICE_A, ICE_B, DIA_C]], np.int32), (len(requests), 1))

    with pytest.raises(ValueError, match=r"'sigma' listed an item that task .* excludes"):
        evaluate_day(eval_day(), cheat, {"popularity": Baseline(perfect)}, CONFIG)


def test_the_report_is_plain_json(report):
    assert json.loads(json.dumps(report.to_json(), allow_nan=False)) == report.to_json()
