"""Purchases as sorted numbers: orders by hand, and shards that are the same however many days share them."""

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.data.purchases import Purchases, distinct, largest_first, positions_in, stable_order
from sigma_core.instruction.shards import build_shard
from tests.instruction.small_world import CONFIG, small_catalog, small_events, small_profiles
from tests.toy_world import toy_events

NUMBERS = st.lists(st.integers(0, 2**40), max_size=30)


@given(NUMBERS)
def test_a_stable_order_is_that_of_sorted(numbers):
    for keys in (
        numbers,
        [key << 20 for key in numbers],
    ):  # the second no longer share a number with their positions
        order = stable_order(np.array(keys, dtype=np.int64))
        assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)
    assert distinct(np.array(numbers, dtype=np.int64)).tolist() == sorted(set(numbers))


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 2**50, 2**62])), max_size=30))
def test_the_largest_come_first_within_a_group(pairs):
    group, value = (np.array([pair[n] for pair in pairs], dtype=np.int64) for n in (0, 1))
    expected = sorted(range(len(pairs)), key=lambda n: (pairs[n][0], -pairs[n][1]))
    assert largest_first(group, value).tolist() == expected


def test_positions_of_absent_ids_are_minus_one():
    found = positions_in(pl.Series(["a", "c"]), pl.Series(["c", "b", None, "a"]))
    assert found.tolist() == [1, -1, -1, 0]


def test_the_toy_world_as_numbers():
    shuffled = toy_events().sample(fraction=1.0, shuffle=True, seed=3)
    purchases = Purchases.of(shuffled)
    assert purchases.users.to_list() == ["u1", "u2", "u3", "u4"]
    assert purchases.start == date(2024, 3, 1)
    days = [date(2024, 3, day) for day in (2, 3)]
    user, item = purchases.pairs_between(*days)
    assert list(zip(purchases.users.gather(user), purchases.items.gather(item), strict=True)) == [
        ("u1", "ice_a"), ("u2", "ice_a"), ("u2", "ice_c"), ("u3", "dia_b"), ("u4", "dia_a"), ("u4", "dia_b"),
    ]  # fmt: skip
    is_ice = np.array([0 if name.startswith("ice") else -1 for name in purchases.items])
    assert purchases.users_of(is_ice, 1, *days).tolist() == [2]  # u2 counts once, diapers nowhere
    assert Purchases.of(purchases) is purchases


def test_without_events_there_is_nothing():
    nothing = Purchases.of(toy_events().clear())
    assert nothing.start is None
    assert len(nothing.by_pair.pair_E) == 0


def test_views_count_for_the_start_alone():
    view = toy_events().head(1).with_columns(
        pl.lit("view").alias(c.EVENT_TYPE), pl.lit(datetime(2024, 2, 1)).alias(c.EVENT_TIME), pl.lit(date(2024, 2, 1)).alias(c.EVENT_DATE)
    )  # fmt: skip
    purchases = Purchases.of(pl.concat([toy_events(), view]))
    assert (purchases.start, purchases.day_E.min()) == (
        date(2024, 2, 1),
        (date(2024, 3, 1) - date(1970, 1, 1)).days,
    )


@pytest.mark.parametrize("back", [0, 7, 20])
def test_a_shard_of_shared_purchases_is_that_of_the_days_own_events(back):
    day = date(2024, 10, 31) - timedelta(days=back)
    cut = day - timedelta(days=CONFIG.data.horizon_days)
    rest = (small_catalog(cut), small_profiles(cut), CONFIG)
    own = build_shard(day, small_events().filter(pl.col(c.EVENT_DATE) <= day), *rest)
    shared = build_shard(day, Purchases.of(small_events()), *rest)
    assert own.examples.height
    assert shared.digest() == own.digest()
