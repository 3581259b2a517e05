"""Which rows are accepted, and that no row vanishes."""

from datetime import datetime

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.data.events import EVENT_ORDER, REASONS, InteractionEvents, clean_events, positive_events
from sigma_core.data.sources.base import RAW_EVENT_SCHEMA, raw_events

KNOWN = pl.Series(["a", "b"])
NOON = datetime(2024, 3, 1, 12)


def row(**change) -> dict:
    return {c.USER_ID: "u", c.ITEM_ID: "a", c.EVENT_TIME: NOON, c.SESSION_ID: "s", c.QUANTITY: 1.0} | change


def raw(*rows: dict) -> pl.DataFrame:
    schema = {name: dtype for name, dtype in RAW_EVENT_SCHEMA.items() if name != c.SOURCE_ROW}
    return raw_events(pl.DataFrame([{n: r.get(n) for n in schema} for r in rows], schema=schema))


def reason_of(change: dict, as_of: datetime | None = None) -> str | None:
    clean, refused = clean_events(raw(row(**change)), KNOWN, as_of)
    assert clean.height + refused.height == 1
    return refused[c.REASON].item() if refused.height else None


def test_each_defect_has_its_reason():
    assert reason_of({}) is None
    assert reason_of({c.USER_ID: None}) == "null_user"
    assert reason_of({c.ITEM_ID: None}) == "null_item"
    assert reason_of({c.EVENT_TIME: None}) == "bad_time"
    assert reason_of({c.ITEM_ID: "nowhere"}) == "unknown_item"
    assert reason_of({c.QUANTITY: 0.0}) == "nonpositive_quantity"
    assert reason_of({c.QUANTITY: -2.0}) == "nonpositive_quantity"
    assert reason_of({}, as_of=datetime(2024, 3, 1, 11)) == "future_time"


def test_a_time_exactly_at_the_end_of_the_source_is_not_future():
    assert reason_of({}, as_of=NOON) is None


def test_a_view_without_quantity_is_accepted():
    assert reason_of({c.QUANTITY: None, c.EVENT_TYPE: "view"}) is None


def test_first_reason_wins_when_a_row_has_several():
    assert reason_of({c.USER_ID: None, c.EVENT_TIME: None, c.QUANTITY: 0.0}) == "null_user"


def test_duplicate_keeps_the_earlier_source_row():
    clean, refused = clean_events(raw(row(), row(), row(**{c.ITEM_ID: "b"})), KNOWN)
    assert sorted(clean[c.SOURCE_ROW]) == [0, 2]
    assert refused.select(c.SOURCE_ROW, c.REASON).row(0) == (1, "duplicate")


def test_other_session_or_type_or_time_is_no_duplicate():
    later = datetime(2024, 3, 1, 13)
    rows = (row(), row(**{c.SESSION_ID: "t"}), row(**{c.EVENT_TYPE: "view"}), row(**{c.EVENT_TIME: later}))
    assert clean_events(raw(*rows), KNOWN)[1].is_empty()


def test_rows_without_a_session_can_be_duplicates():
    assert clean_events(raw(row(**{c.SESSION_ID: None}), row(**{c.SESSION_ID: None})), KNOWN)[1].height == 1


def test_a_broken_row_does_not_make_its_good_twin_a_duplicate():
    clean, refused = clean_events(raw(row(**{c.QUANTITY: 0.0}), row()), KNOWN)
    assert clean[c.SOURCE_ROW].to_list() == [1]
    assert refused[c.REASON].to_list() == ["nonpositive_quantity"]


def test_clean_events_fit_the_published_table_and_quarantine_keeps_the_raw_row():
    clean, refused = clean_events(raw(row(), row(**{c.EVENT_TIME: None})), KNOWN)
    events = InteractionEvents(clean, refused)
    assert events.summary() == {"rows": 1, "quarantined": 1, "quarantined_by_reason": {"bad_time": 1}}
    assert set(refused.columns) == {*RAW_EVENT_SCHEMA, c.REASON, c.EVENT_DATE}
    assert refused[c.EVENT_DATE].item() is None


def test_no_rows_give_an_empty_valid_partition(tmp_path):
    clean, refused = clean_events(raw(), KNOWN)
    InteractionEvents(clean, refused).save(tmp_path)
    assert InteractionEvents.load(tmp_path).frame.is_empty()


def test_saved_events_come_back_with_the_same_digest(tmp_path):
    events = InteractionEvents(*clean_events(raw(row(**{c.ITEM_ID: "b"}), row(), row()), KNOWN))
    events.save(tmp_path)
    assert InteractionEvents.load(tmp_path).digest() == events.digest()


def test_positive_events_are_purchases_and_ratings():
    rows = (
        row(),
        row(**{c.EVENT_TYPE: "view", c.ITEM_ID: "b"}),
        row(**{c.EVENT_TYPE: "rating", c.SESSION_ID: "x"}),
    )
    clean, _ = clean_events(raw(*rows), KNOWN)
    assert positive_events(clean)[c.EVENT_TYPE].to_list() == ["purchase", "rating"]


cells = st.fixed_dictionaries(
    {
        c.USER_ID: st.sampled_from(["u", "v", None]),
        c.ITEM_ID: st.sampled_from(["a", "b", "nowhere", None]),
        c.EVENT_TIME: st.sampled_from([NOON, datetime(2024, 3, 2), None]),
        c.SESSION_ID: st.sampled_from(["s", None]),
        c.QUANTITY: st.sampled_from([1.0, 0.0, None]),
    }
)


@given(st.lists(cells, max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_row_ends_in_exactly_one_table(rows):
    clean, refused = clean_events(raw(*rows), KNOWN, datetime(2024, 3, 1, 23))
    assert sorted([*clean[c.SOURCE_ROW], *refused[c.SOURCE_ROW]]) == list(range(len(rows)))
    assert set(refused[c.REASON]) <= set(REASONS)
    assert clean.equals(clean.sort(EVENT_ORDER))
    key = [c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.SESSION_ID, c.EVENT_TYPE]
    assert clean.height == clean.unique(key).height
