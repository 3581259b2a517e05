"""The promotion rule by hand: which rule decides, what blocks, what does not, and what is said."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from sigma_core.config import PromotionConfig
from sigma_core.evaluation.promotion import (
    Case,
    Comparison,
    Fitness,
    Guardrails,
    ModelName,
    TaskLoss,
    decide,
    decide_refit,
    margin_of,
    rule_of,
)

CONFIG = PromotionConfig()
FIT = Fitness(0, "", 1.0, 2.0, 2.1)
LISTS = Guardrails(coverage=0.4, cold_share=0.02, latency_ms=40)


def model(day: str, refit: str = "base of October", recipe: str = "r1") -> ModelName:
    return ModelName(day, "2017-10-01", f"adapter of {day}", refit, "codebooks", "encoder", recipe)


def loss(upper: float, targets: int = 2000, households: int = 200) -> TaskLoss:
    return TaskLoss(targets, households, 0.199, 0.200, upper)


def compared(**uppers: float) -> Comparison:
    return Comparison(model("2017-10-16"), model("2017-10-15"), {name: loss(u) for name, u in uppers.items()})


CASE = Case(
    date(2017, 10, 23), model("2017-10-23"), FIT, LISTS, model("2017-10-22"), LISTS, compared(query=0.009)
)


def broken(case: Case) -> list[str]:
    return [finding.name for finding in decide(case, CONFIG).findings if finding.is_against]


def test_the_margin_is_a_share_of_the_recall_and_never_below_the_floor() -> None:
    assert margin_of(loss(0), CONFIG) == pytest.approx(0.05 * 0.2)
    assert margin_of(replace(loss(0), incumbent=0.002), CONFIG) == 0.005


def test_a_loss_bounded_below_the_margin_promotes_and_one_beyond_it_does_not() -> None:
    verdict = decide(CASE, CONFIG)
    assert (verdict.outcome, verdict.rule) == ("promoted", "comparison")
    assert "the adapter of 2017-10-16, same recipe, is not worse than that of 2017-10-15" in verdict.reason
    worse = decide(replace(CASE, comparison=compared(query=0.009, category=0.0101)), CONFIG)
    assert worse.outcome == "kept"
    assert "that of 2017-10-22 goes on: category: recall@20" in worse.reason
    assert "loses at most +0.0101 (95%), margin 0.0100" in worse.reason
    assert broken(replace(CASE, comparison=compared(query=0.0101))) == ["task/query"]


def test_an_underpowered_task_does_not_block_and_is_told() -> None:
    few = Comparison(
        model("2017-10-16"),
        model("2017-10-15"),
        {"query": loss(0.0), "season": loss(0.5, targets=199), "holiday": loss(0.5, households=99)},
    )
    verdict = decide(replace(CASE, comparison=few), CONFIG)
    assert verdict.outcome == "promoted"
    assert "199 targets of 200 households, underpowered, does not block" in verdict.reason
    assert [f.holds for f in verdict.findings if f.name.startswith("task/")] == [True, None, None]


def test_underpowered_tasks_alone_are_no_comparison() -> None:
    few = Comparison(model("2017-10-16"), model("2017-10-15"), {"season": loss(0.0, targets=10)})
    assert broken(replace(CASE, comparison=few)) == ["comparison"]


def test_without_a_comparison_the_old_one_stays() -> None:
    verdict = decide(replace(CASE, comparison=None, no_comparison="the adapter of the 16th is gone"), CONFIG)
    assert (verdict.outcome, broken(replace(CASE, comparison=None))) == ("kept", ["comparison"])
    assert "is gone" in verdict.reason


def test_the_promoted_one_itself_a_week_ago_is_evidence_enough() -> None:
    same = Comparison(model("2017-10-16"), model("2017-10-16"))
    verdict = decide(replace(CASE, comparison=same), CONFIG)
    assert verdict.outcome == "promoted"
    assert "is the promoted one itself" in verdict.reason


@pytest.mark.parametrize(
    ("fitness", "name"),
    [
        (Fitness(num_not_finite=3), "finite"),
        (Fitness(misfit="another base"), "compatible"),
        (Fitness(0, "", 0.99, 2.0, 2.1), "beams"),
        (Fitness(0, "", None, 2.0, 2.1), "beams"),
        (Fitness(0, "", 1.0, 2.21, 2.1), "probe_loss"),
        (Fitness(0, "", 1.0, float("nan"), 2.1), "probe_loss"),
        (Fitness(0, "", 1.0, None, 2.1), "probe_loss"),
    ],
)
@pytest.mark.parametrize("day", [3, 23])
def test_every_data_free_check_keeps_an_adapter_out_on_every_day(
    fitness: Fitness, name: str, day: int
) -> None:
    case = replace(CASE, day=date(2017, 10, day), fitness=fitness)
    assert decide(case, CONFIG).outcome == "kept"
    assert broken(case) == [name]


def test_a_loss_at_the_factor_of_the_base_holds() -> None:
    assert decide(replace(CASE, fitness=Fitness(0, "", 1.0, 1.05 * 2.0, 2.0)), CONFIG).outcome == "promoted"


@pytest.mark.parametrize(
    ("mine", "name"),
    [
        ({"coverage": 0.31}, "coverage"),  # 0.8 x 0.4 is needed
        ({"cold_share": 0.004}, "cold_share"),  # 0.5 x 0.02 - 0.002 is needed
        ({"latency_ms": 2000.5}, "latency"),
    ],
)
def test_a_broken_guardrail_keeps_an_adapter_out_but_not_on_the_first_days_of_a_month(
    mine: dict[str, float], name: str
) -> None:
    case = replace(CASE, guardrails=replace(LISTS, **mine))
    assert broken(case) == [name]
    early = replace(case, day=date(2017, 10, 7), comparison=None)
    verdict = decide(early, CONFIG)
    assert (verdict.outcome, verdict.rule) == ("promoted", "month_start")
    told = {finding.name: finding.holds for finding in verdict.findings}
    assert told[name] is False, "told all the same"


def test_the_first_model_needs_no_comparison_but_the_guardrails() -> None:
    first = replace(CASE, promoted=None, promoted_guardrails=None, comparison=None)
    verdict = decide(first, CONFIG)
    assert (verdict.outcome, verdict.rule) == ("promoted", "first")
    narrow = replace(first, guardrails=replace(LISTS, coverage=0.04))
    assert (decide(narrow, CONFIG).outcome, broken(narrow)) == ("refused", ["coverage"])
    assert broken(replace(first, guardrails=None)) == ["lists"]


def test_a_model_of_another_refit_cannot_go_on() -> None:
    other = replace(CASE, promoted=model("2017-09-30", "base of September"), comparison=None)
    assert (rule_of(other), decide(other, CONFIG).outcome) == ("first", "promoted")
    worn = replace(other, fitness=Fitness(num_not_finite=1))
    assert decide(worn, CONFIG).outcome == "refused"
    assert decide(replace(worn, day=date(2017, 10, 1)), CONFIG).outcome == "refused"


def test_after_a_rollback_the_first_days_need_a_comparison_too() -> None:
    early = replace(CASE, day=date(2017, 10, 4), comparison=None, no_comparison="too early")
    assert decide(early, CONFIG).outcome == "promoted"
    held = replace(early, held="lists full of soap")
    assert (rule_of(held), decide(held, CONFIG).outcome) == ("comparison", "kept")
    new_refit = replace(held, promoted=model("2017-09-30", "base of September"))
    assert decide(new_refit, CONFIG).outcome == "promoted", "a hold does not outlive its refit"


def test_what_was_rolled_back_is_not_promoted_again() -> None:
    verdict = decide(replace(CASE, barred="lists full of soap"), CONFIG)
    assert verdict.outcome == "kept"
    assert "rolled back by hand: lists full of soap" in verdict.reason


def test_a_verdict_is_plain_values() -> None:
    values: dict[str, Any] = decide(CASE, CONFIG).to_json()
    assert set(values) == {"outcome", "rule", "reason", "findings"}
    assert set(values["findings"][0]) == {"name", "said", "holds", "blocks"}


def test_a_refit_that_loses_nothing_is_published_and_one_that_loses_on_a_task_is_refused() -> None:
    refit = replace(model("2017-10-24", "base of November"), month="2017-11-01", checkpoint="")
    served = model("2017-10-23")
    good = decide_refit(Comparison(refit, served, {"query": loss(0.009)}), CONFIG)
    assert (good.outcome, good.rule) == ("promoted", "comparison")
    bad = decide_refit(Comparison(refit, served, {"query": loss(0.009), "category": loss(0.0101)}), CONFIG)
    assert bad.outcome == "refused"
    assert (
        "the refit of 2017-11-01 is refused beside the adapter of 2017-10-23 on the refit of 2017-10-01"
        in bad.reason
    )
    assert "category: recall@20" in bad.reason
    assert "query" not in bad.reason, "what holds is no reason"


def test_a_refit_that_nothing_can_be_said_of_is_refused_and_the_first_is_published() -> None:
    refit, few = model("2017-10-24", "base of November"), {"query": loss(0.009, targets=3)}
    assert decide_refit(Comparison(refit, model("2017-10-23"), few), CONFIG).outcome == "refused"
    first = decide_refit(None, CONFIG)
    assert (first.outcome, first.rule) == ("promoted", "first")
