"""Which purchases answer which task, by hand; z-scores by arithmetic."""

from datetime import date, timedelta
from math import sqrt

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.instruction.contexts import owned_items
from sigma_core.instruction.labels import (
    RULES,
    Outcomes,
    askable_phrases,
    rising_items,
    seasonal_types,
    target_facts,
    type_outcomes,
)
from sigma_core.instruction.tasks import TASKS
from tests.toy_world import TOY_CONFIG, TOY_DAY, targets_of, toy_catalog, toy_events, toy_offers

CUT = date(2017, 10, 23)
TYPES = pl.DataFrame({c.ITEM_ID: ["1", "2", "3", "4"], c.ITEM_TYPE: ["candy", "soup", "bread", None]})


def toy_outcomes(catalog: ItemCatalog | None = None, min_category_items: int = 2) -> Outcomes:
    catalog = catalog or toy_catalog()
    targets = targets_of(toy_events(), catalog, TOY_DAY, 7)[0]
    owned = owned_items(toy_events(), catalog, TOY_DAY, targets[c.USER_ID], 120.0)
    config = TOY_CONFIG.model_copy(update={"min_category_items": min_category_items})
    return Outcomes(
        target_facts(targets, catalog, owned),
        catalog.frame,
        askable_phrases(catalog, "train"),
        [],
        ["baby wipes"],
        config,
        ["dia_a", "ice_b"],
        toy_offers().known_on(TOY_DAY),
    )


def answers(rule: str, outcomes: Outcomes) -> set[tuple[str, str, str]]:
    return set(RULES[rule](outcomes).select(c.USER_ID, c.REQUEST_KEY, c.ITEM_ID).iter_rows())


def test_every_task_has_a_rule():
    assert {task.rule for task in TASKS.values()} == set(RULES)


def test_facts_of_the_toy_targets():
    facts = toy_outcomes().facts.select(
        c.USER_ID, c.ITEM_ID, c.IS_REPEAT, c.IS_CATEGORY_REPEAT, c.IS_TAIL, c.IS_NEW
    )
    assert facts.rows() == [
        ("u1", "dia_b", False, False, False, False),
        ("u1", "ice_a", True, True, False, False),
        ("u3", "dia_a", True, True, False, False),
        ("u4", "dia_c", False, True, True, True),  # u4 owns dia_a and dia_b of the same category
    ]


def test_all_and_discover_and_longtail():
    outcomes = toy_outcomes()
    assert answers("all", outcomes) == {
        ("u1", "", "dia_b"), ("u1", "", "ice_a"), ("u3", "", "dia_a"), ("u4", "", "dia_c")
    }  # fmt: skip
    assert answers("discover", outcomes) == {("u1", "", "dia_b"), ("u4", "", "dia_c")}
    assert answers("longtail", outcomes) == {("u4", "", "dia_c")}


def test_discover_leaves_out_a_text_the_user_had_under_another_id():
    shared = (
        pl.when(pl.col(c.ITEM_ID).is_in(["dia_b", "ice_b"])).then(pl.lit("one title")).otherwise(c.TEXT_GROUP)
    )
    catalog = ItemCatalog(toy_catalog().frame.with_columns(shared.alias(c.TEXT_GROUP)))  # u1 owns ice_b
    assert answers("discover", toy_outcomes(catalog)) == {("u4", "", "dia_c")}


def test_query_answers_by_type():
    asked = {row for row in answers("query", toy_outcomes()) if row[1] in ("nappies", "ice cream")}
    assert asked == {
        ("u1", "nappies", "dia_b"), ("u1", "ice cream", "ice_a"), ("u3", "nappies", "dia_a"), ("u4", "nappies", "dia_c")
    }  # fmt: skip


def test_category_needs_enough_items():
    assert answers("category", toy_outcomes(min_category_items=3)) == {
        ("u1", "diapers", "dia_b"), ("u3", "diapers", "dia_a"), ("u4", "diapers", "dia_c")
    }  # fmt: skip
    assert len(answers("category", toy_outcomes(min_category_items=2))) == 4
    assert answers("category", toy_outcomes(min_category_items=4)) == set()


def test_holiday_takes_the_labelled_types():
    assert answers("holiday", toy_outcomes()) == {("u4", "", "dia_c")}
    assert answers("season", toy_outcomes()) == set()


def test_trending_takes_the_labelled_items():
    assert answers("rising", toy_outcomes()) == {("u3", "", "dia_a")}


def test_a_campaigns_answers_are_what_its_receivers_took_of_it():
    assert answers("offered", toy_outcomes()) == {
        ("u1", "ice", "ice_a"), ("u1", "baby", "dia_b"), ("u3", "baby", "dia_a"), ("u4", "baby", "dia_c")
    }  # fmt: skip


def sales(counts: dict[str, list[int]], cut: date = CUT) -> pl.DataFrame:
    """Item -> users of the target week, then of the week before the cut, the week before that, ..."""
    rows = [
        (f"u{user}", item, cut + timedelta(days=3 - 7 * week), "purchase")
        for item, weeks in counts.items()
        for week, users in enumerate(weeks)
        for user in range(users)
    ]
    rows += [
        ("u0", "4", cut - timedelta(days=55), "purchase")
    ]  # the data start 8 weeks before; item 4 has no type
    frame = pl.DataFrame(rows, schema=[c.USER_ID, c.ITEM_ID, c.EVENT_DATE, c.EVENT_TYPE], orient="row").cast(
        {c.EVENT_DATE: pl.Date}
    )
    return frame.with_columns(pl.col(c.EVENT_DATE).cast(pl.Datetime("us")).alias(c.EVENT_TIME))


def test_z_scores_are_the_formula():
    events = sales({"1": [10] + [2] * 8, "2": [9] + [1, 7] * 4, "3": [3]})
    outcomes = type_outcomes(
        pl.concat([events, events]), TYPES, CUT, 7
    )  # a second line of a user counts once
    z = dict(outcomes.select(c.ITEM_TYPE, c.Z_SCORE).iter_rows())
    assert z["candy"] == pytest.approx((10 - 2) / sqrt(2))  # std 0: the floor sqrt(mean)
    assert z["soup"] == pytest.approx((9 - 4) / sqrt(8 * 9 / 7))  # mean 4, sample std over its floor 2
    assert z["bread"] == pytest.approx(3.0)  # mean 0: the floor 1
    assert outcomes.height == 3


def test_seasons_and_holidays_split_the_rising_types():
    outcomes = type_outcomes(
        sales({"1": [10] + [2] * 8, "2": [7] + [2] * 8, "3": [5] + [2] * 8}), TYPES, CUT, 7
    )
    assert seasonal_types(outcomes, is_before_holiday=True) == (["soup"], ["candy"])
    assert seasonal_types(outcomes, is_before_holiday=False) == (["candy", "soup"], [])


def test_rising_items_have_the_z_of_their_own():
    events = sales({"1": [10] + [2] * 8, "2": [5] + [2] * 8, "3": [3]})
    assert rising_items(events, pl.Series(["1", "2", "3", "4"]), CUT, 7) == ["1", "3"]
    assert rising_items(events, pl.Series(["2"]), CUT, 7) == []


@pytest.mark.parametrize(("weeks", "is_defined"), [(4, True), (3, False)])
def test_four_weeks_of_history_are_needed(weeks, is_defined):
    events = sales({"1": [9] + [2] * 8}).filter(pl.col(c.EVENT_DATE) > CUT - timedelta(days=7 * weeks))
    first = events.head(1).with_columns(
        pl.lit("u9").alias(c.USER_ID), pl.lit("2").alias(c.ITEM_ID),
        pl.lit(CUT - timedelta(days=7 * weeks - 1)).alias(c.EVENT_DATE),
    )  # fmt: skip
    outcomes = type_outcomes(pl.concat([events, first]), TYPES, CUT, 7)
    assert (outcomes.height > 0) is is_defined


def test_views_count_for_nobody():
    events = sales({"1": [10] + [2] * 8}).with_columns(pl.lit("view").alias(c.EVENT_TYPE))
    assert type_outcomes(events, TYPES, CUT, 7).height == 0


def test_a_longer_horizon_compares_windows_of_its_length():
    outcomes = type_outcomes(sales({"1": [4, 4, 2, 2, 2, 2, 2, 2, 2]}), TYPES, CUT, 10)
    row = outcomes.filter(pl.col(c.ITEM_TYPE) == "candy").row(0, named=True)
    # the 10 days from 24 October hold the target week only; the windows start 14, 21, ... days earlier
    assert row["users"] == 4
    assert row["mean"] < 4
