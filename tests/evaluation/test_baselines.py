"""Every opponent's lists in the toy world, by hand."""

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.evaluation.baselines import build_baselines
from sigma_core.evaluation.requests import COMMON
from sigma_core.evaluation.task_pools import phrase_answers
from sigma_core.instruction.phrases import answering_items
from tests.evaluation.toy_evaluation import (
    DIA_A,
    DIA_B,
    DIA_C,
    ICE_A,
    ICE_B,
    TIE_ORDER,
    fake_encode,
    history,
    listed,
    request,
)
from tests.toy_world import TOY_DAY, toy_catalog, toy_offers

THEMES = {"Halloween": ["wipes"]}


@pytest.fixture(scope="module")
def baselines():
    return build_baselines(
        toy_catalog().frame,
        history(),
        TOY_DAY,
        themes=THEMES,
        encode=fake_encode,
        answers=lambda r: np.array([ICE_B], np.int32),
        offered=toy_offers().items,
    )


def lists(baselines, name, *requests):
    return listed(baselines[name].rank(list(requests)))


def test_the_common_four_play_everywhere_and_the_oracle_is_marked(baselines):
    assert tuple(baselines)[:4] == COMMON
    assert all(baselines[name].plays(task) for name in COMMON for task in ("season", "holiday"))
    assert [name for name, b in baselines.items() if b.is_oracle] == ["type_filter_oracle"]
    assert not baselines["bm25_popularity"].plays("category")


def test_popularity_lists_in_tie_order(baselines):
    assert lists(baselines, "popularity", request()) == [TIE_ORDER]


def test_personal_lists_hold_what_the_household_took_and_nothing_else(baselines):
    asked = [request("u1"), request("u3"), request("u4"), request("nobody")]
    assert lists(baselines, "personal_frequency", *asked) == [
        [ICE_A, ICE_B],
        [DIA_A, DIA_B, DIA_C],
        [DIA_A, DIA_B],
        [],
    ]
    assert lists(baselines, "personal_decayed", request("u1")) == [[ICE_B, ICE_A]]


def test_the_filled_form_goes_on_with_popularity(baselines):
    assert lists(baselines, "personal_decayed_filled", request("u1")) == [[ICE_B, ICE_A, DIA_A, DIA_B, DIA_C]]
    assert lists(baselines, "personal_frequency_filled", request("nobody")) == [TIE_ORDER]


def test_item_knn_puts_neighbours_before_the_rest(baselines):
    assert lists(baselines, "item_knn", request("u4")) == [[DIA_A, DIA_B, DIA_C, ICE_A, ICE_B]]


def test_a_category_request_is_answered_inside_the_category(baselines):
    asked = request("u4", "category", "ice cream", slots={"category": "ice cream"})
    for name in ("popularity", "personal_frequency"):
        assert lists(baselines, name, asked)[0][:2] == [ICE_A, ICE_B]


def test_a_campaign_is_answered_inside_the_items_of_its_offer(baselines):
    asked = request("u4", "campaign", "offer-ice: premium ice cream", slots={"campaign": "offer-ice"})
    for name in ("popularity", "personal_frequency"):
        assert lists(baselines, name, asked)[0][:2] == [ICE_A, ICE_B]
    unknown = request("u4", "campaign", "soda", slots={"campaign": "offer"})
    assert lists(baselines, "popularity", unknown) == [TIE_ORDER]


def test_trending_weighs_every_item_by_its_own_ratio():
    """Sold alike in 56 days; the item that sold all of it in the last 14 comes first."""
    frame = toy_catalog().frame.with_columns(
        pl.lit(8).alias(c.NUM_EVENTS_56D), pl.Series(c.NUM_EVENTS_14D, [2, 2, 8, 2, 2])
    )
    found = build_baselines(frame, history(), TOY_DAY, themes={})
    asked = request("nobody", "trending", "trending", slots={"trend": "trending"})
    assert lists(found, "popularity", asked)[0][0] == DIA_C
    assert lists(found, "personal_frequency", asked)[0][0] == DIA_C


def test_a_query_narrows_by_its_words(baselines):
    asked = request("u4", "query", "wipes")
    for name in ("popularity", "personal_decayed", "bm25_popularity", "bm25_personal"):
        assert lists(baselines, name, asked)[0][0] == DIA_C
    unknown = request("u4", "query", "nothing like it")
    assert lists(baselines, "popularity", unknown) == [TIE_ORDER]


def test_an_encoder_finds_what_no_word_does(baselines):
    asked = request("u4", "query", "frozen treat")
    assert lists(baselines, "minilm_popularity", asked)[0][:2] == [ICE_A, ICE_B]
    assert lists(baselines, "minilm_personal", request("u1", "query", "frozen treat"))[0][:2] == [
        ICE_B,
        ICE_A,
    ]
    assert lists(baselines, "minilm_holiday", request("u4", "holiday", "Halloween"))[0][:2] == [ICE_A, ICE_B]


def test_the_oracle_starts_with_the_true_answers(baselines):
    assert lists(baselines, "type_filter_oracle", request("u1", "query", "soda"))[0][0] == ICE_B


def test_the_oracles_answers_are_those_of_the_phrase_file():
    catalog = toy_catalog().frame
    answers = phrase_answers(catalog)
    written = answering_items(catalog, "train") | answering_items(catalog, "test")
    assert written
    for phrase, items in written.items():
        assert [catalog[c.ITEM_ID][int(row)] for row in answers(request("u1", "query", phrase))] == items
    assert answers(request("u1", "query", "no such phrase")).tolist() == []


def test_a_holiday_starts_with_its_themes(baselines):
    assert lists(baselines, "popularity", request("u1", "holiday", "halloween"))[0][0] == DIA_C
    unthemed = lists(baselines, "popularity", request("u1", "holiday", "Arbor Day"))[0]
    assert sorted(unthemed) == sorted(TIE_ORDER)


def test_the_long_tail_holds_tail_items(baselines):
    tail = set(np.flatnonzero(toy_catalog().frame[c.IS_TAIL].to_numpy()))
    found = lists(baselines, "popularity", request("u1", "longtail"))[0]
    assert set(found[: len(tail)]) == tail


@pytest.mark.parametrize("name", ["popularity", "personal_decayed", "item_knn"])
def test_excluded_items_are_never_listed(baselines, name):
    found = lists(
        baselines, name, request("u1", "discover", exclude=[ICE_A, ICE_B]), request("u1", "discover")
    )
    assert found[0] == [DIA_A, DIA_B, DIA_C]
    assert {ICE_A, ICE_B} <= set(found[1])


def test_the_answer_does_not_depend_on_who_else_asks(baselines):
    asked = [
        request(u, t, f) for t, f in (("just_for_you", ""), ("query", "wipes")) for u in ("u4", "u1", "u3")
    ]
    together = baselines["item_knn"].rank(asked)
    alone = np.concatenate([baselines["item_knn"].rank([one]) for one in asked])
    assert np.array_equal(together, alone)
