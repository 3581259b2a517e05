"""The report: its files, its verdicts, and what it calls a problem."""

import copy
import json

import numpy as np
import pytest

from sigma_core.artifacts import write_artifact
from sigma_core.evaluation.baselines import build_baselines
from sigma_core.evaluation.protocol import DayJudge, evaluate_day
from sigma_core.evaluation.report import EvalReport, strongest, verdict
from sigma_core.evaluation.report_text import number, signed
from sigma_core.evaluation.requests import NO_ITEM
from tests.evaluation.toy_evaluation import CONFIG, eval_day, history
from tests.toy_world import TOY_DAY, toy_catalog


def everything(requests):
    out = np.full((len(requests), 20), NO_ITEM, np.int32)
    for row, request in zip(out, requests, strict=True):
        kept = [i for i in (3, 4, 0, 1, 2) if i not in request.exclude]
        row[: len(kept)] = kept
    return out


@pytest.fixture(scope="module")
def report():
    baselines = build_baselines(toy_catalog().frame, history(), TOY_DAY, themes={})
    return evaluate_day(eval_day(), everything, baselines, CONFIG)


def changed(report, path, value):
    values = copy.deepcopy(report.to_json())
    where = values
    for key in path[:-1]:
        where = where[key]
    if value is None:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    return EvalReport(values)


def test_it_is_written_and_read_back_with_the_same_digest(report, tmp_path):
    manifest = write_artifact(report, tmp_path / "eval_report")
    folder = tmp_path / "eval_report"
    assert EvalReport.load(folder).digest() == report.digest() == manifest["digest"]
    assert json.loads((folder / "report.json").read_text())["as_of"] == "2024-03-05"
    for plot in ("recall.png", "lift.png"):
        assert (folder / plot).read_bytes().startswith(b"\x89PNG")


def test_it_says_how_lifts_and_confined_requests_were_asked(report):
    judge = DayJudge(eval_day(), CONFIG)
    asked = [judge.plan.asked[n] for plan in judge.plan.tasks.values() for n in (*plan.right, *plan.unseen)]
    assert asked
    assert not any(request.exclude.size for request in asked)
    said = report.markdown()
    assert "without any history filter" in said
    assert "one request a household, chosen by hash" in said


def test_the_page_needs_nothing_else_and_holds_every_defined_task(report, tmp_path):
    write_artifact(report, tmp_path / "eval_report")
    page = (tmp_path / "eval_report" / "report.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    for name, task in report.to_json()["tasks"].items():
        assert (f'<h2 id="{name}">' in page) == (task["num_targets"] is not None)
    assert page.count("<svg") >= 3


def test_the_json_has_the_promised_shape(report):
    values = report.to_json()
    assert {"as_of", "horizon_days", "tasks", "catalog"} <= set(values)
    for name, task in values["tasks"].items():
        assert set(task) == {
            "num_targets", "num_households", "underpowered", "ceiling@20", "models", "intervals", "p_values",
            "model_intervals", "instruction_lift", "rows", "segments",
        }  # fmt: skip
        assert set(task["rows"]) == {"repeat", "new", "cold", *(["unseen_phrase"] if name == "query" else [])}
        for metrics in task["models"].values():
            assert {"recall@1", "recall@5", "recall@10", "recall@20", "macro_recall@20", "any_hit@20"} <= set(
                metrics
            )
            assert {"group_recall@20", "ndcg@10", "ndcg@20", "coverage@20"} <= set(metrics)


def test_the_words_say_what_is_defined_and_what_is_not(report):
    text = report.markdown()
    assert "# Evaluation of 2024-03-05: the next 7 days" in text
    assert "so undefined: season, trending, campaign." in text
    assert "| just_for_you | 4 | 3 |" in text
    assert "## holiday" in text
    assert "## season" not in text


def test_a_good_report_has_no_problems(report):
    assert report.problems() == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("tasks", "query"), None, "task query is missing"),
        (("tasks", "query", "models", "item_knn"), None, "task query lacks the model item_knn"),
        (("tasks", "query", "models", "sigma"), None, "task query lacks the model sigma"),
        (("tasks", "query", "intervals", "popularity"), None, "no interval against popularity"),
        (("tasks", "query", "ceiling@20"), float("nan"), "report.tasks.query.ceiling@20"),
        (("tasks", "just_for_you", "underpowered"), True, "too few to judge"),
        (("tasks", "just_for_you"), None, "task just_for_you is missing"),
    ],
)
def test_what_must_not_be_trusted_is_named(report, path, value, problem):
    assert any(problem in found for found in changed(report, path, value).problems())


def test_a_changed_number_changes_the_digest_and_noise_does_not(report):
    path = ("tasks", "query", "models", "sigma", "recall@20")
    value = report.to_json()["tasks"]["query"]["models"]["sigma"]["recall@20"]
    assert changed(report, path, value + 1e-9).digest() == report.digest()
    assert changed(report, path, value + 1e-3).digest() != report.digest()


def test_the_summary_names_the_strongest_opponent(report):
    summary = report.summary()
    assert set(summary["tasks"]) == set(report.to_json()["tasks"]) - {"season", "trending", "campaign"}
    assert summary["tasks"]["just_for_you"]["sigma"] == 1.0
    json.dumps(summary, allow_nan=False)


def task(low, high, p, underpowered=False):
    models = {"sigma": {"recall@20": 0.3}, "x": {"recall@20": 0.2}, "oracle": {"recall@20": 0.9}}
    return {
        "num_targets": 500,
        "underpowered": underpowered,
        "models": models,
        "intervals": {"x": {"recall@20": [low, high]}},
        "p_values": {"x": {"recall@20": p}},
    }


def test_a_win_needs_interval_corrected_p_and_power():
    assert strongest(task(0.1, 0.2, 0.01)) == "x"  # never the oracle
    assert verdict(task(0.1, 0.2, 0.01), "x") == "above"
    assert verdict(task(-0.2, -0.1, 0.01), "x") == "below"
    assert verdict(task(0.1, 0.2, 0.2), "x") == "even"
    assert verdict(task(-0.1, 0.2, 0.01), "x") == "even"
    assert verdict(task(0.1, 0.2, 0.01, underpowered=True), "x") == "underpowered"


def test_shares_are_written_short():
    assert (number(0.16612), number(1.0), number(None)) == (".1661", "1.0000", "-")
    assert (signed(-0.05), signed(0.05)) == ("-.0500", "+.0500")
