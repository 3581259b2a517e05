"""Metrics against arithmetic done by hand. Two users: A asks twice, B once.

request  user  list          targets
0        A     7 3 5         3, 9       one hit at rank 2
1        A     1 2 -         2          one hit at rank 2
2        B     4 -           8          none
"""

from math import log2

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.evaluation.metrics import (
    METRICS,
    ItemFacts,
    Ratio,
    ceiling,
    contains,
    coverage,
    group_hits,
    household_sums,
    item_facts,
    list_diversity,
    list_novelty,
    metric_values,
    ndcg,
    outcome_of,
    target_ranks,
    target_sets,
)

NUM_ITEMS = 10
LISTS = np.array([[7, 3, 5], [1, 2, -1], [4, -1, -1]], np.int32)
TARGETS = target_sets([np.array(t, np.int32) for t in ([3, 9], [2], [8])])
USERS = np.array([0, 0, 1])
# items 4 and 8 are shown under one title; types: even and odd; 1 bit of information each
FACTS = ItemFacts(np.array([0, 1, 2, 3, 4, 5, 6, 7, 4, 9]), np.arange(NUM_ITEMS) % 2, np.ones(NUM_ITEMS))


def sums(keep=None):
    return household_sums(outcome_of(LISTS, TARGETS, FACTS), TARGETS, USERS, 2, keep)


def test_targets_end_to_end_remember_their_request():
    assert TARGETS.rows.tolist() == [3, 9, 2, 8]
    assert TARGETS.requests().tolist() == [0, 0, 1, 2]
    kept = TARGETS.keep(np.array([False, True, True, False]))
    assert kept.rows.tolist() == [9, 2]
    assert kept.counts().tolist() == [1, 1, 0]


def test_the_rank_of_a_target_is_its_place_and_padding_is_no_item():
    assert target_ranks(LISTS, TARGETS).tolist() == [1, 3, 1, 3]
    empty = np.full((3, 3), -1, np.int32)
    assert target_ranks(empty, TARGETS).tolist() == [3, 3, 3, 3]
    assert target_ranks(LISTS[:0], target_sets([])).tolist() == []


def test_an_item_of_the_same_title_is_a_group_hit():
    assert group_hits(LISTS, TARGETS, FACTS.group).tolist() == [True, False, True, True]


def test_recall_pools_targets_and_macro_recall_averages_households():
    found = sums()
    assert found["recall@1"].value() == 0
    assert found["recall@5"].value() == 2 / 4
    assert found["macro_recall@20"].value() == (2 / 3 + 0) / 2
    assert found["any_hit@20"].value() == 1 / 2
    assert found["group_recall@20"].value() == 3 / 4


def test_ndcg_is_a_mean_over_requests_with_the_ideal_of_each():
    first = (1 / log2(3)) / (1 + 1 / log2(3))  # one of two targets, at rank 2
    second = 1 / log2(3)  # the only target, at rank 2
    assert sums()["ndcg@10"].value() == pytest.approx((first + second + 0) / 3)


def test_the_ideal_of_ndcg_stops_at_k():
    many = target_sets([np.arange(15, dtype=np.int32)])
    ranks = np.arange(15)
    assert ndcg(ranks, many, 10).tolist() == pytest.approx([1.0])
    assert ndcg(ranks + 1, many, 2).tolist() == pytest.approx([(1 / log2(3)) / (1 + 1 / log2(3))])


def test_the_ceiling_counts_what_fits_into_a_list():
    targets = target_sets([np.arange(30, dtype=np.int32), np.arange(10, dtype=np.int32)])
    assert ceiling(targets) == (20 + 10) / 40
    assert ceiling(target_sets([])) is None


def test_a_row_of_targets_leaves_out_requests_without_any():
    kept = sums(np.array([True, False, False, True]))  # 3 of request 0, 8 of request 2
    assert kept["recall@20"].value() == 1 / 2
    assert kept["ndcg@20"].value() == pytest.approx((1 / log2(3) + 0) / 2)
    assert sums(np.zeros(4, bool))["recall@20"].value() is None


def test_diversity_is_the_share_of_pairs_of_two_types():
    lists = np.array([[0, 2, 1], [0, 2, -1], [5, -1, -1]], np.int32)  # types e e o | e e | o
    assert list_diversity(lists, FACTS.item_type).tolist() == pytest.approx([2 / 3, 0, 0])


def test_novelty_is_the_mean_information_of_what_is_listed():
    bits = np.arange(NUM_ITEMS, dtype=float)
    assert list_novelty(LISTS, bits).tolist() == pytest.approx([(7 + 3 + 5) / 3, 3 / 2, 4])


def test_coverage_counts_distinct_items():
    assert coverage(LISTS, NUM_ITEMS) == 6 / 10


def test_the_information_of_an_item_is_its_share_of_the_volume():
    catalog = pl.DataFrame(
        {c.TEXT_GROUP: ["a", "a", "b"], c.ITEM_TYPE: ["x", None, "x"], c.NUM_EVENTS_56D: [3, 2, 0]}
    )
    facts = item_facts(catalog)
    assert facts.group.tolist() == [0, 0, 1]
    assert facts.item_type.tolist() == [1, 0, 1]
    assert facts.information.tolist() == pytest.approx([-log2(4 / 8), -log2(3 / 8), -log2(1 / 8)])


def test_every_metric_gets_a_number():
    values = metric_values(sums(), LISTS, NUM_ITEMS)
    assert tuple(values) == METRICS
    assert all(value is not None for value in values.values())


def test_lists_are_judged_by_their_first_twenty():
    lists = np.arange(25, dtype=np.int32)[None]
    targets = target_sets([np.array([22], np.int32)])
    facts = ItemFacts(np.arange(25), np.zeros(25, int), np.zeros(25))
    found = household_sums(outcome_of(lists, targets, facts), targets, np.array([0]), 1)
    assert found["recall@20"].value() == 0


def test_contains_agrees_with_isin():
    rng = np.random.default_rng(0)
    ordered, wanted = np.sort(rng.integers(0, 50, 30)), rng.integers(0, 60, 200)
    assert contains(ordered, wanted).tolist() == np.isin(wanted, ordered).tolist()
    assert not contains(np.empty(0, int), wanted).any()


def test_a_ratio_without_anything_has_no_value():
    assert Ratio(np.zeros(2), np.zeros(2)).value() is None
