"""The store's promises: an event counts once, a row gives way only to a newer one, a cursor moves with what it read."""

import sqlite3
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sigma_core.serving.live_store import (
    CHUNK,
    Cursor,
    LiveEvent,
    LiveStore,
    Refused,
    Update,
    end_of_day,
)

DAY = date(2024, 10, 28)
END = end_of_day(DAY)
MINUTE = 60_000_000
DAY_US = 24 * 60 * MINUTE


def event(n: int, user: str = "u0", item: str = "i00", **more: str) -> LiveEvent:
    return LiveEvent(user, item, END + n * MINUTE, **more)


def update(user: str, since: int, watermark: int, num_events: int, item: str) -> Update:
    return Update(
        user, since, watermark, num_events, {"from": item}, {"just_for_you": [[item, 0.5, [1], 0.5]]}
    )


@pytest.fixture
def store(tmp_path: Path) -> LiveStore:
    return LiveStore(tmp_path / "live.sqlite")


def shown(store: LiveStore, user: str = "u0") -> str | None:
    row = store.list_of(user, "just_for_you")
    return row.value[0][0] if row else None


def test_an_event_counts_once_and_makes_its_user_due(store: LiveStore) -> None:
    taken = store.ingest(
        [event(1), event(1), event(2, "u1"), event(1, session="s"), event(3, "u2", type="view")]
    )
    assert (taken.new, taken.duplicates) == (4, 1)
    assert [user for user, _ in store.due(10)] == ["u0", "u1"], "a view changes no list"
    assert store.ingest([event(1)]).new == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["u0", "u1"])), max_size=6), max_size=5)
)
def test_order_batches_and_repetitions_leave_no_trace(
    tmp_path: Path, parts: list[list[tuple[int, str]]]
) -> None:
    path = tmp_path / "any.sqlite"
    path.unlink(missing_ok=True)
    store = LiveStore(path)
    for part in parts:
        store.ingest([event(n, user) for n, user in part])
    want = {event(n, user) for part in parts for n, user in part}
    assert {e for user in ("u0", "u1") for e in store.events_of(user)} == want
    assert {user for user, _ in store.due(9)} == {e.user_id for e in want}
    store._connection.close()
    for file in tmp_path.glob("any.sqlite*"):
        file.unlink()


def test_older_events_never_overwrite_newer_ones(store: LiveStore) -> None:
    store.update([update("u0", 0, END + 5, 3, "newer")], "2024-10-28", "m")
    store.update([update("u0", 0, END + 4, 9, "older")], "2024-10-29", "m")
    assert shown(store) == "newer"
    store.update([update("u0", 0, END + 5, 2, "fewer")], "2024-10-29", "m")
    assert shown(store) == "newer"
    store.update([update("u0", 0, END + 5, 4, "a late one")], "2024-10-28", "m")
    assert shown(store) == "a late one"
    row = store.user("u0")
    assert row is not None
    assert (row.watermark_us, row.num_events, row.value) == (END + 5, 4, {"from": "a late one"})


def test_the_daily_lists_give_way_to_newer_ones_and_make_their_users_due(store: LiveStore) -> None:
    lists = daily("u0", "u1")
    assert store.load_day(lists, DAY, "model-1")
    assert not store.load_day(lists, DAY, "model-1"), "once"
    store.ingest([event(1)])
    ((user, since),) = store.due(9)
    store.update([update(user, since, END + MINUTE, 1, "live")], "2024-10-28", "model-1")
    assert store.due(9) == []
    assert store.load_day(lists, DAY, "model-2")
    assert (shown(store, "u0"), shown(store, "u1")) == ("live", "daily")
    assert [user for user, _ in store.due(9)] == ["u0"], "for the new model"
    assert store.load_day(lists, date(2024, 10, 29), "model-3")
    assert shown(store, "u0") == "daily", "the next day's asset knows the event"


def daily(*users: str, item: str = "daily") -> list[tuple[str, str, list[Any]]]:
    return [(user, "just_for_you", [[item, 1, [1], 1]]) for user in users]


def test_lists_of_users_who_left_are_gone_with_the_day_and_those_that_know_more_stay(
    store: LiveStore,
) -> None:
    store.load_day(daily("u0", "left", "active"), DAY, "model-1")
    store.update([update("late", 0, END, 1, "late")], "2024-10-28", "model-1")
    store.update([update("active", 0, END + 2 * DAY_US, 1, "live")], "2024-10-28", "model-1")
    assert store.load_day(daily("u0"), DAY, "model-2")
    assert [shown(store, user) for user in ("u0", "left", "active", "late")] == [
        "daily",
        None,
        "live",
        "late",
    ]
    assert store.load_day(daily("u0"), date(2024, 10, 29), "model-3")
    assert shown(store, "late") is None, "the next day knows that event, and has no list of its user"
    assert shown(store, "active") == "live"


def test_events_are_taken_in_while_a_day_is_loaded(store: LiveStore) -> None:
    other = LiveStore(store.path)
    other._connection.execute("PRAGMA busy_timeout = 1")

    def slow() -> Iterator[tuple[str, str, list[Any]]]:
        for n in range(CHUNK + 2):
            if n in (0, 1, CHUNK + 1):
                assert other.ingest([event(n)]).new == 1
            yield from daily(f"u{n}")

    assert store.load_day(slow(), DAY, "model-1")
    assert store.counts()["lists"] == CHUNK + 2


def test_a_day_that_was_loaded_in_part_never_counts_as_loaded(store: LiveStore) -> None:
    def killed() -> Iterator[tuple[str, str, list[Any]]]:
        yield from daily(*(f"u{n}" for n in range(CHUNK)), item="new")
        raise RuntimeError("killed")

    store.load_day(daily("u0", "left"), DAY, "model-1")
    with pytest.raises(RuntimeError):
        store.load_day(killed(), DAY, "model-2")
    assert (shown(store, "u0"), shown(store, "left")) == ("new", "daily"), "half of either"
    assert store.load_day(daily("u0", "left"), DAY, "model-1"), "so the former is loaded anew"
    assert (shown(store, "u0"), shown(store, "left"), shown(store, "u1")) == ("daily", "daily", None)


def test_of_two_days_that_are_loaded_at_once_the_one_begun_last_has_the_say(store: LiveStore) -> None:
    def overtaken() -> Iterator[tuple[str, str, list[Any]]]:
        yield from daily("u0", item="first")
        assert LiveStore(store.path).load_day(daily("u0", item="second"), DAY, "model-2")

    assert not store.load_day(overtaken(), DAY, "model-1")
    assert shown(store) == "second"
    assert not store.load_day(daily("u0"), DAY, "model-2"), "it is the one that is loaded"


def test_an_event_that_comes_during_a_refresh_keeps_its_user_due(store: LiveStore) -> None:
    store.ingest([event(1)])
    ((user, since),) = store.due(9)
    store.ingest([event(2)])
    store.update([update(user, since, END + MINUTE, 1, "first")], "2024-10-28", "m")
    assert [user for user, _ in store.due(9)] == ["u0"]


def test_cursor_events_and_refusals_are_one_transaction(store: LiveStore) -> None:
    store.ingest([event(1)], Cursor("file", "mark", 10), [Refused(4, "bad_time")])
    store.ingest([], Cursor("file", "mark", 10), [Refused(4, "bad_time")])
    assert store.cursor("file") == Cursor("file", "mark", 10)
    assert store.counts()["refused"] == 1

    def breaks() -> object:
        yield event(2)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.ingest(breaks(), Cursor("file", "mark", 20))  # type: ignore[arg-type]
    assert store.cursor("file") == Cursor("file", "mark", 10)
    assert store.counts()["events"] == 1


def test_another_process_reads_whole_rows_while_one_writes(store: LiveStore) -> None:
    store.update([update("u0", 0, END, 1, "before")], "d", "m")
    other = LiveStore(store.path)
    with store._writing() as connection:
        connection.execute("UPDATE lists SET items = '[[\"half'")
        assert shown(other) == "before"
        connection.execute("UPDATE lists SET items = '[[\"after\"]]'")
    assert shown(other) == "after"


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    LiveStore(tmp_path / "s")
    with sqlite3.connect(tmp_path / "s") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="schema 99"):
        LiveStore(tmp_path / "s")


def test_a_full_disk_is_told_and_the_next_events_are_taken_in(store: LiveStore) -> None:
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [event(n, user="u" * 100) for n in range(2000)]
    with pytest.raises(
        sqlite3.OperationalError, match=r"live.sqlite: database or disk is full; nothing of this"
    ):
        store.ingest(many)
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.ingest(many).new == 2000


def test_a_commit_that_fails_leaves_no_transaction_open(store: LiveStore) -> None:
    """It would hold the store's lock, and refuse every later event of its thread, until the process ends."""

    class Failing:
        def __init__(self, real: sqlite3.Connection) -> None:
            self.real, self.left = real, 1

        def execute(self, said: str, *values: Any) -> Any:
            if said == "COMMIT" and self.left:
                self.left = 0
                raise sqlite3.OperationalError("disk I/O error")
            return self.real.execute(said, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    store._local.connection = Failing(store._connection)
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        store.ingest([event(1)])
    assert store.counts()["events"] == 0
    assert store.ingest([event(1)]).new == 1


def test_a_file_that_is_no_store_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "live.sqlite").write_bytes(b"no store" * 1000)
    with pytest.raises(ValueError, match=r"live.sqlite cannot be used as a live store .* move it"):
        LiveStore(tmp_path / "live.sqlite")
