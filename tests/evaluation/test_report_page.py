"""The page of a report, and what only it shows: segments, intervals of every model, calibration, examples, settings and data."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.artifacts import digest_json
from sigma_core.evaluation.baselines import build_baselines
from sigma_core.evaluation.protocol import evaluate_day
from sigma_core.evaluation.report import verdict
from sigma_core.evaluation.report_drawings import forest, reliability_chart, variety
from sigma_core.evaluation.report_page import data_rows, report_page, settings_of
from sigma_core.evaluation.requests import NO_ITEM
from tests.evaluation.toy_evaluation import CONFIG, eval_day, history
from tests.toy_world import TOY_DAY, toy_catalog


class Sure:
    """Lists everything that it may, each item with a probability of .2."""

    def __call__(self, requests):
        return self.scored(requests)[0]

    def scored(self, requests):
        rows = np.full((len(requests), 20), NO_ITEM, np.int32)
        for row, request in zip(rows, requests, strict=True):
            kept = [i for i in (3, 4, 0, 1, 2) if i not in request.exclude]
            row[: len(kept)] = kept
        return rows, np.where(rows >= 0, np.float32(0.2), np.float32(0.0))


def judged(ranker):
    baselines = build_baselines(toy_catalog().frame, history(), TOY_DAY, themes={})
    day = replace(eval_day(), data={"item_index/2024-03-05": "abc", "source/products": "def"})
    return evaluate_day(day, ranker, baselines, CONFIG)


@pytest.fixture(scope="module")
def report():
    return judged(Sure())


def test_every_model_has_an_interval_around_its_own_value(report):
    task = report.to_json()["tasks"]["just_for_you"]
    assert set(task["model_intervals"]) == set(task["models"])
    for name, metrics in task["model_intervals"].items():
        low, high = metrics["recall@20"]
        assert low <= task["models"][name]["recall@20"] <= high
        assert metrics["coverage@20"] is None


def test_segments_hold_all_targets_and_all_that_was_listed(report):
    """dia_c was launched that day: it is the cold target of u4."""
    segments = report.to_json()["tasks"]["just_for_you"]["segments"]
    assert sum(part["targets"] for part in segments.values()) == 4
    assert segments["cold"]["targets"] == 1
    assert segments["cold"]["recall@20"]["sigma"] == 1.0
    assert sum(part["share_of_lists"]["sigma"] for part in segments.values()) == pytest.approx(1.0)


def test_calibration_counts_a_purchase_as_a_share_of_the_households(report):
    """Three lists of all five items hold all targets: what is observed adds up to 1 a list, .2 an item."""
    found = report.to_json()["calibration"]
    assert (found["lists"], found["mean_predicted"], found["mean_observed"]) == (3, 0.2, 0.2)
    assert sum(row["count"] for row in found["bins"]) == 15


def test_an_example_has_a_history_an_instruction_and_marked_hits(report):
    examples = report.to_json()["examples"]
    assert len(examples) == 2
    for example in examples:
        assert example["history"]
        plain = example["lists"][0]
        assert (plain["task"], plain["listed"]) == ("just_for_you", 5)
        assert plain["hits"] == plain["targets"] == sum(item["hit"] for item in plain["items"])
        assert {item["probability"] for item in plain["items"]} == {0.2}
        dates = [item["date"] for item in example["history"]]
        assert dates == sorted(dates, reverse=True)
    assert report.without_examples().to_json()["examples"] == []


def test_the_page_shows_all_of_it_and_needs_nothing_else(report):
    page = report_page(report.to_json())
    assert "http" not in page
    assert "<script" not in page
    for part in (
        "torso",
        "confined to what",
        "Expected calibration error",
        "Household u",
        "min targets",
        "abc",
    ):
        assert part in page
    plain = report_page(judged(lambda requests: Sure()(requests)).to_json())
    assert "Not measured" in plain
    assert "None in this copy" in report_page(report.without_examples().to_json())


def test_settings_go_by_section_and_partitions_of_an_asset_are_one_row():
    assert settings_of({"seed": 17, "evaluation": {"lift_users": None, "min_users": 2}}) == {
        "run": [("seed", "17")],
        "evaluation": [("lift users", "not set"), ("min users", "2")],
    }
    rows = data_rows({"events/2024-01-02": "b", "events/2024-01-01": "a", "source/users": "c"})
    assert rows[0] == {
        "name": "events", "count": 2, "first": "2024-01-01", "last": "2024-01-02",
        "digest": digest_json({"2024-01-01": "a", "2024-01-02": "b"}),
    }  # fmt: skip
    assert (rows[1]["name"], rows[1]["digest"]) == ("source/users", "c")


def test_an_opponent_is_drawn_in_the_colour_of_the_verdict():
    """An interval beside zero is no verdict as long as the corrected p value is not under .05."""
    task = {
        "num_targets": 9, "underpowered": False,
        "models": {"sigma": {"recall@20": 0.4}, "x": {"recall@20": 0.2}, "y": {"recall@20": 0.1}},
        "intervals": {"x": {"recall@20": [0.1, 0.3]}, "y": {"recall@20": [0.2, 0.4]}},
        "p_values": {"x": {"recall@20": 0.07}, "y": {"recall@20": 0.01}},
    }  # fmt: skip
    rows = forest(task)["rows"]
    assert {row["name"]: row["verdict"] for row in rows} == {"x": "even", "y": "above"}
    assert all(row["verdict"] == verdict(task, row["name"]) for row in rows)
    assert all(row["low"] < row["x"] < row["high"] for row in rows)
    assert [row["name"] for row in rows] == ["x", "y"]  # the strongest first, as in the bars beside it
    assert (rows[1]["low"], rows[1]["x"], rows[1]["high"]) == (
        75.0,
        87.5,
        100.0,
    )  # .2, .3, .4 of a reach of .4; 0 is at 50
    assert {row["verdict"] for row in forest(task | {"underpowered": True})["rows"]} == {"underpowered"}


def test_the_page_can_be_read_in_the_dark_and_by_keyboard(report):
    page = report_page(report.to_json())
    assert "prefers-color-scheme: dark" in page
    assert "<th>" not in page  # every heading says what it heads
    assert all('tabindex="0"' in box for box in re.findall(r'<(?:div|section) class="wide[^>]*>', page))


def test_models_that_none_beats_on_both_axes_are_marked_and_the_legend_has_all():
    metrics = {"sigma": (0.4, 0.5), "x": (0.2, 1.0), "y": (0.1, 0.0)}
    models = {name: {"recall@20": recall, "coverage@20": share} for name, (recall, share) in metrics.items()}
    drawn = variety({"models": models}, ("coverage@20", "novelty@20"))
    assert (drawn["metrics"], len(drawn["charts"])) == (["coverage@20"], 1)
    assert {row["name"]: row["values"] for row in drawn["models"]} == {
        "sigma": [(0.5, True)], "x": [(1.0, True)], "y": [(0.0, False)],
    }  # fmt: skip
    assert len({row["key"] for row in drawn["models"]}) == 3
    assert variety(None, ("coverage@20",)) is None


def test_the_curve_starts_at_zero_and_bins_say_their_numbers():
    svg = reliability_chart([{"predicted": 0.04, "observed": 0.01, "count": 1}])
    assert "<title>0.04, 0.01</title>" in svg
    assert reliability_chart([]) == ""


def test_parts_of_a_query_include_phrases_never_trained_on(report):
    """The toy's unseen phrase has one target; the other tasks, and older reports, have no such column."""
    page = report_page(report.to_json())
    assert page.count('<th scope="col">unseen phrase<small>1</small></th>') == 1
    assert "asked for by a phrase that sigma never trained on" in page
    old = report.to_json()
    query = old["tasks"]["query"]
    rows = {name: row for name, row in query["rows"].items() if name != "unseen_phrase"}
    old = old | {"tasks": old["tasks"] | {"query": query | {"rows": rows}}}
    assert "never trained on" not in report_page(old)


def test_what_left_the_catalog_is_said_to_be_gone():
    day = eval_day()
    gone = history().with_columns(pl.col(c.ITEM_ID).replace({"ice_b": "ice_old"}))
    baselines = build_baselines(toy_catalog().frame, history(), TOY_DAY, themes={})
    values = evaluate_day(replace(day, history=gone), Sure(), baselines, CONFIG).to_json()
    titles = {item["title"] for example in values["examples"] for item in example["history"]}
    assert "ice_old, no longer in the catalog" in titles
