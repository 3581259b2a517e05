"""The context made from a list of events is the one that the daily frames give."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.config import InstructionConfig
from sigma_core.data.users import UserProfiles
from sigma_core.instruction.collate import UserContext, encode_contexts
from sigma_core.instruction.contexts import build_contexts
from sigma_core.serving.live_context import Taken, live_context, session_prompt
from tests.serving.live_world import DAY, ITEMS, catalog

ROWS = {item: row for row, item in enumerate(ITEMS)}
CONFIG = InstructionConfig(max_recent=3, max_favorites=4, favorite_half_life_days=20.0)
MIDNIGHT = datetime.combine(DAY, datetime.min.time())
events = st.lists(
    st.tuples(st.sampled_from([*ITEMS[:6], "gone"]), st.integers(0, 60), st.integers(0, 3)), max_size=12
)


def by_frames(taken: list[tuple[str, int, int]]) -> UserContext:
    times = [MIDNIGHT - timedelta(days=age) + timedelta(hours=hour) for _, age, hour in taken]
    frame = pl.DataFrame(
        {
            c.USER_ID: ["u"] * len(taken),
            c.ITEM_ID: [item for item, _, _ in taken],
            c.EVENT_TIME: times,
            c.EVENT_DATE: [time.date() for time in times],
            c.EVENT_TYPE: ["purchase"] * len(taken),
        },
        schema={c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.EVENT_TIME: pl.Datetime("us"), c.EVENT_DATE: pl.Date,
                c.EVENT_TYPE: pl.String},
    )  # fmt: skip
    profiles = UserProfiles(
        pl.DataFrame([("u", "about u", DAY, 1)], schema=UserProfiles.schema, orient="row")
    )
    return encode_contexts(build_contexts(frame, catalog(), profiles, DAY, CONFIG, ["u"]), ROWS)[0]


@settings(max_examples=60, deadline=None)
@given(events)
def test_it_equals_the_context_of_the_daily_frames(taken: list[tuple[str, int, int]]) -> None:
    live = live_context(
        "u", "about u", [Taken(item, age, -24.0 * age + hour) for item, age, hour in taken], ROWS, CONFIG
    )
    want = by_frames(taken)
    assert (live.user_id, live.profile_text) == (want.user_id, want.profile_text)
    np.testing.assert_array_equal(live.recent_rows, want.recent_rows)
    np.testing.assert_array_equal(live.favorite_rows, want.favorite_rows)
    np.testing.assert_array_equal(live.recent_stats, want.recent_stats)
    np.testing.assert_array_equal(live.favorite_stats, want.favorite_stats)


def test_lines_of_one_event_count_as_that_many_events() -> None:
    once = live_context("u", "", [Taken("i01", 5, -5.0, 3)], ROWS, CONFIG)
    thrice = live_context("u", "", [Taken("i01", 5, -5.0)] * 3, ROWS, CONFIG)
    np.testing.assert_array_equal(once.recent_stats, thrice.recent_stats)
    assert once.recent_stats[0, 0] == 3


def test_a_prompt_grows_at_its_end_and_is_rebuilt_at_the_limit() -> None:
    rows = {name: n for n, name in enumerate("abc")}
    config = InstructionConfig(favorite_half_life_days=4.0)
    old = [Taken("a", 4, -4.0), Taken("b", 0, 0.0), Taken("gone", 0, 0.5)]
    new = [Taken("a", -1, 1.0), Taken("c", -1, 2.0), Taken("a", -3, 3.0), Taken("gone", -3, 4.0)]

    def told(count: int, most: int = 3) -> tuple[list[int], list[list[float]]]:
        # late, early: the order of arrival means nothing
        prompt = session_prompt([*new[:count][::-1], *old], rows, config, most)
        assert prompt.favorite_rows[0] == (0 if count >= most else 1)  # as of the checkpoint
        return prompt.recent_rows.tolist(), prompt.recent_stats[:, :3].tolist()

    known = [0, 1], [[1, 4, 0.5], [1, 0, 1]]
    assert told(0) == known
    assert told(1) == (known[0] + [0], known[1] + [[2, 0, 1.5]])
    assert told(2) == (known[0] + [0, 2], known[1] + [[2, 0, 1.5], [1, 0, 1]])
    # the third makes a new checkpoint, on its own day: three lines of a, 7, 2 and 0 days old
    rebuilt, stats = told(3)
    assert rebuilt == [1, 2, 0]
    assert stats[2] == pytest.approx([3, 0, 2**-1.75 + 2**-0.5 + 1])
    assert told(4) == (rebuilt, stats)  # what the catalog does not hold is no event
