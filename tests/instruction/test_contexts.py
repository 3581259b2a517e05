"""What a context holds, by hand, and that it never sees the future."""

from datetime import date, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.config import InstructionConfig
from sigma_core.instruction.contexts import build_contexts, history_users, owned_items
from tests.toy_world import TOY_DAY, TOY_ITEMS, TOY_USERS, toy_catalog, toy_events, toy_profiles

CONFIG = InstructionConfig()
EVENTS, CATALOG, PROFILES = toy_events(), toy_catalog(), toy_profiles()


def contexts(events=EVENTS, users=None, **changes):
    config = CONFIG.model_copy(update=changes)
    return build_contexts(events, CATALOG, PROFILES, TOY_DAY, config, users)


def test_toy_contexts():
    rows = {row[c.USER_ID]: row for row in contexts().iter_rows(named=True)}
    assert list(rows) == ["u1", "u2", "u3", "u4"]
    u1, u2, u3 = rows["u1"], rows["u2"], rows["u3"]
    assert u1[c.PROFILE_TEXT] == "aged 25 to 34, one adult without kids"
    assert u2[c.PROFILE_TEXT] == ""
    assert (u1[c.RECENT_ITEMS], u1[c.RECENT_AGES]) == (["ice_b", "ice_a"], [0, 2])
    assert (u1[c.FAVORITE_ITEMS], u1[c.FAVORITE_COUNTS], u1[c.FAVORITE_AGES]) == (
        ["ice_b", "ice_a"],
        [2, 2],
        [0, 2],
    )
    assert u2[c.RECENT_ITEMS] == ["ice_b", "ice_a"]  # ice_c has left the catalog
    assert (u3[c.RECENT_ITEMS], u3[c.RECENT_AGES]) == (["dia_c", "dia_b", "dia_a"], [0, 2, 4])
    assert u3[c.CUT_DATE] == TOY_DAY


def test_old_purchases_count_less():
    # u4 took dia_a on days 2 and 4, dia_b on day 2: two lines beat one, whatever the half-life
    favorites = contexts(users=["u4"], favorite_half_life_days=1.0).row(0, named=True)
    assert favorites[c.FAVORITE_ITEMS] == ["dia_a", "dia_b"]
    assert favorites[c.FAVORITE_DECAYED] == [0.5 + 0.125, 0.125]  # ages 1 and 3; age 3
    assert favorites[c.FAVORITE_DECAYED_FAST] == [
        2.0**-4 + 2.0**-12,
        2.0**-12,
    ]  # with a quarter of the half-life
    assert favorites[c.RECENT_COUNTS] == favorites[c.FAVORITE_COUNTS] == [2, 1]
    # u3 took each item once, so the newest leads
    assert contexts(users=["u3"])[c.FAVORITE_ITEMS].to_list() == [["dia_c", "dia_b", "dia_a"]]
    owned = owned_items(EVENTS, CATALOG, TOY_DAY, pl.Series(["u4"]), 1.0)
    assert owned.frame["decayed"].to_list() == [2**40 // 2 + 2**40 // 8, 2**40 // 8]


def test_lists_are_cut_at_their_limits():
    u3 = contexts(users=["u3"], max_recent=1, max_favorites=2).row(0, named=True)
    assert (u3[c.RECENT_ITEMS], u3[c.FAVORITE_ITEMS]) == (["dia_c"], ["dia_c", "dia_b"])


def test_equal_times_are_ordered_by_item():
    noon = datetime(2024, 3, 5, 12)
    rows = [EVENTS.row(0, named=True) | {c.USER_ID: "u1", c.ITEM_ID: i, c.EVENT_TIME: noon, c.EVENT_DATE: noon.date()}
            for i in ("dia_b", "dia_a")]  # fmt: skip
    events = pl.concat([EVENTS, pl.DataFrame(rows, schema=EVENTS.schema)])
    assert contexts(events, users=["u1"])[c.RECENT_ITEMS].to_list() == [["dia_a", "dia_b", "ice_b", "ice_a"]]


def test_a_named_user_without_history_has_empty_lists():
    row = contexts(users=["nobody"]).row(0, named=True)
    assert [row[n] for n in (c.USER_ID, c.PROFILE_TEXT, c.RECENT_ITEMS, c.FAVORITE_COUNTS)] == [
        "nobody",
        "",
        [],
        [],
    ]


def test_views_are_no_history():
    views = EVENTS.with_columns(pl.lit("view").alias(c.EVENT_TYPE))
    assert contexts(views).height == 0
    assert history_users(views, CATALOG, TOY_DAY).is_empty()


future_rows = st.lists(
    st.tuples(st.sampled_from(TOY_USERS), st.sampled_from(TOY_ITEMS), st.integers(1, 20), st.integers(0, 23)),
    max_size=12,
)


@given(future_rows)
@settings(max_examples=30, deadline=None)
def test_the_future_never_changes_a_context(rows):
    template = EVENTS.row(0, named=True)
    later = [
        template | {c.USER_ID: u, c.ITEM_ID: i, c.EVENT_TIME: moment, c.EVENT_DATE: moment.date()}
        for u, i, days, hour in rows
        for moment in [
            datetime.combine(TOY_DAY + timedelta(days=days), datetime.min.time()) + timedelta(hours=hour)
        ]
    ]
    known = EVENTS.filter(pl.col(c.EVENT_DATE) <= TOY_DAY)
    disturbed = pl.concat([known, pl.DataFrame(later, schema=EVENTS.schema)]).sample(
        fraction=1.0, shuffle=True, seed=1
    )
    assert contexts(disturbed).equals(contexts(known))
    assert contexts(disturbed)[c.CUT_DATE].max() == date(2024, 3, 5)
