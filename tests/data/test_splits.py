"""History and targets never meet."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.data.splits import history_until, target_window
from sigma_core.data.users import build_user_profiles
from tests.toy_world import TOY_DAY, TOY_START, targets_of, toy_catalog, toy_events, toy_profiles, toy_source

EVENTS, CATALOG = toy_events(), toy_catalog()


def test_the_window_starts_the_day_after():
    assert target_window(date(2017, 10, 23), 7) == (date(2017, 10, 24), date(2017, 10, 30))


def test_a_window_of_no_days_is_refused():
    with pytest.raises(ValueError, match="at least 1 day"):
        target_window(TOY_DAY, 0)


def test_toy_targets():
    inside, outside = targets_of(toy_events(), toy_catalog(), TOY_DAY, 7)
    assert inside.rows() == [("u1", "dia_b"), ("u1", "ice_a"), ("u3", "dia_a"), ("u4", "dia_c")]
    assert outside == 1


def test_a_shorter_window_has_fewer_targets():
    assert targets_of(toy_events(), toy_catalog(), TOY_DAY, 1)[0].rows() == [
        ("u1", "ice_a"),
        ("u3", "dia_a"),
    ]


@given(offset=st.integers(-2, 12), horizon=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_history_and_targets_are_disjoint_and_bounded(offset, horizon):
    day = TOY_START + timedelta(days=offset)
    events = EVENTS
    first, last = target_window(day, horizon)
    history = history_until(events, day)
    assert history.height == 0 or history[c.EVENT_DATE].max() <= day < first
    window = events.filter(events[c.EVENT_DATE].is_between(first, last))
    inside, outside = targets_of(events, CATALOG, day, horizon)
    assert inside.height + outside == window.unique([c.USER_ID, c.ITEM_ID]).height
    assert not set(history[c.SOURCE_ROW]) & set(window[c.SOURCE_ROW])


def test_toy_profiles_know_only_the_days_so_far():
    assert toy_profiles().frame.rows() == [
        ("u1", "aged 25 to 34, one adult without kids", date(2024, 3, 1), 4),
        ("u2", "", date(2024, 3, 2), 3),
        ("u3", "aged 35 to 44, two adults with kids", date(2024, 3, 1), 3),
        ("u4", "", date(2024, 3, 2), 3),
    ]
    assert build_user_profiles(toy_source().users(), toy_events(), TOY_START).frame[c.USER_ID].to_list() == [
        "u1",
        "u3",
    ]
