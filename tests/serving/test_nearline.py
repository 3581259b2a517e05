"""Nearline ends where a full recomputation ends, whatever the order, the batches and the kills on the way."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from sigma_core import columns as c
from sigma_core.config import NearlineConfig
from sigma_core.data.users import UserProfiles
from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Prompt, Request, UserContext, encode_contexts
from sigma_core.instruction.contexts import build_contexts
from sigma_core.instruction.tasks import render
from sigma_core.serving.holder import Holder
from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.security import KeyRing
from sigma_core.serving.live_store import LiveEvent, LiveStore, micros
from sigma_core.serving.nearline import Nearline
from sigma_core.serving.session_cache import SessionCache
from tests.serving.live_world import DAY, ITEMS, catalog, live_day
from tests.serving.test_http import EASY, LOCAL, items

CONFIG = NearlineConfig(batch_events=3, batch_users=2)
MIDNIGHT = datetime.combine(DAY, datetime.min.time())


def history(user_ids: Sequence[str]) -> Mapping[str, list[LiveEvent]]:
    """What u0 and u1 took up to the day."""
    known = {"u0": [("i00", 3), ("i01", 3)], "u1": [("i02", 10), ("i00", 1)]}
    return {
        user: [
            LiveEvent(user, item, micros(MIDNIGHT - timedelta(days=age))) for item, age in known.get(user, [])
        ]
        for user in user_ids
    }


def rows(seed: int = 1, count: int = 40, users: int = 5) -> list[dict[str, Any]]:
    """Events of some minutes and days after, late ones among them, some of them twice."""
    rng = random.Random(seed)
    out = [
        {
            "user_id": f"u{rng.randrange(users)}",
            "item_id": rng.choice([*ITEMS, "gone"]),
            "event_time": (MIDNIGHT + timedelta(minutes=rng.randrange(-2000, 6000))).isoformat(),
            "event_type": rng.choice(["purchase", "purchase", "rating", "view"]),
        }
        for _ in range(count)
    ]
    return out + rng.sample(out, count // 5)


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in events))
    return path


def nearline(store: LiveStore) -> Nearline:
    return Nearline(live_day(), store, history, CONFIG)


def state(store: LiveStore, users: int = 5) -> dict[str, Any]:
    """Every list and context. Who stands in a batch together moves the last bits of a score, nothing else."""
    out: dict[str, Any] = {}
    for user in (f"u{n}" for n in range(users)):
        row = store.list_of(user, "just_for_you")
        out[user] = store.user(user), row and row[:3]
        out[f"items of {user}"] = [item for item, *_ in row.value] if row else None
        out[f"scores of {user}"] = [score for _, score, *_ in row.value] if row else None
    return out


def same(one: LiveStore, other: LiveStore, users: int = 5) -> bool:
    left, right = state(one, users), state(other, users)
    for name, value in left.items():
        want = pytest.approx(right[name], abs=1e-5) if name.startswith("scores") else right[name]
        assert value == want, name
    return True


def recomputed(user: str, events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """The user's list by the daily way: one frame of all events, contexts, ranking; nothing kept from before."""
    live = live_day()
    own = [e for e in events if e["user_id"] == user and e["event_type"] != "view"]
    taken = {(e["item_id"], datetime.fromisoformat(e["event_time"]), e["event_type"]) for e in own}
    taken |= {
        (e.item_id, datetime(1970, 1, 1) + timedelta(microseconds=e.time_us), e.type)
        for e in history([user])[user]
    }
    frame = pl.DataFrame(
        [(user, item, time, time.date(), kind) for item, time, kind in sorted(taken)],
        schema={c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.EVENT_TIME: pl.Datetime("us"), c.EVENT_DATE: pl.Date,
                c.EVENT_TYPE: pl.String},
        orient="row",
    )  # fmt: skip
    profile = pl.DataFrame([(user, live.profile_of(user), DAY, 1)], schema=UserProfiles.schema, orient="row")
    cut = max(DAY, frame[c.EVENT_DATE].max() or DAY)  # type: ignore[type-var]
    config = live.config

    def context_at(day: date) -> UserContext:
        made = build_contexts(frame, catalog(), UserProfiles(profile), day, config.instruction, [user])
        return encode_contexts(made, live.rows)[0]

    context = replace(context_at(cut), prompt=appended(context_at(DAY), frame, live.rows))  # type: ignore[arg-type]
    ask = [[Ask(Request(render("just_for_you", 0, {})))]]
    ranked = live.engine.recommender.rank(
        [context],
        ask,
        {},
        config.serving.u2i_top_n,
        config.generation.collapse_text_groups,
    )
    return [(ITEMS[r.row], r.score) for r in ranked[0]]


def appended(checkpoint: UserContext, frame: pl.DataFrame, rows: Mapping[str, int]) -> Prompt:
    """The checkpoint's items, oldest purchase first, then those after its day with what was known at each."""
    half_life = live_day().config.instruction.favorite_half_life_days
    seen: dict[str, list[float]] = {}
    items, stats = [], []
    for item, day in frame.sort(c.EVENT_TIME, c.ITEM_ID).select(c.ITEM_ID, c.EVENT_DATE).iter_rows():
        seen.setdefault(item, []).append(max((DAY - day).days, 0))
        if day > DAY and item in rows:
            ages = np.array(seen[item])
            items.append(rows[item])
            stats.append(
                (len(ages), 0, (0.5 ** (ages / half_life)).sum(), (0.5 ** (4 * ages / half_life)).sum())
            )
    return Prompt(
        checkpoint.favorite_rows,
        checkpoint.favorite_stats,
        np.concatenate((checkpoint.recent_rows[::-1], np.array(items, dtype=np.int64))),
        np.concatenate((checkpoint.recent_stats[::-1], np.array(stats, dtype=np.float32).reshape(-1, 4))),
    )


def test_lists_equal_a_full_recomputation(tmp_path: Path) -> None:
    store, events = LiveStore(tmp_path / "s"), rows()
    done = nearline(store).run(write(tmp_path / "e.jsonl", events))
    assert (done.new, done.duplicates, done.refused) == (40, 8, 0)
    for user in {e["user_id"] for e in events if e["event_type"] != "view"}:
        row, want = store.list_of(user, "just_for_you"), recomputed(user, events)
        assert row is not None
        assert [item for item, *_ in row.value] == [item for item, _ in want]
        assert [score for _, score, *_ in row.value] == pytest.approx([score for _, score in want], abs=1e-4)


def test_a_session_cache_changes_no_list_and_reads_new_events_only(tmp_path: Path) -> None:
    """Two users, one event at a time, over the limit at which the prompt is rebuilt; with a cache and without one."""
    config = CONFIG.model_copy(update={"session_events": 4})
    plain, cached = (Nearline(live_day(), LiveStore(tmp_path / n), history, config) for n in "ab")
    cached.live.open_session(SessionCache(cached.live.model, 8, tmp_path / "spilled", 8))
    for n, item in enumerate(["i03", "i07", "i03", "i00", "i11", "i12"]):
        events = [
            LiveEvent(user, item, micros(MIDNIGHT + timedelta(days=1 + n // 3, hours=n)))
            for user in ("u0", "u2")
        ]
        for near in (plain, cached):
            near.store.ingest(events)
            assert near.refresh() == 2
        for user in ("u0", "u2"):
            mine, want = (near.store.list_of(user, "just_for_you") for near in (cached, plain))
            assert mine is not None
            assert want is not None
            assert [row[0] for row in mine.value] == [row[0] for row in want.value]
            assert [row[1] for row in mine.value] == pytest.approx([row[1] for row in want.value], rel=1e-4)
    assert cached.live.sessions is not None
    assert cached.live.sessions.counts.hits == 2 * 5
    with pytest.raises(ValueError, match="session cache of model another"):
        cached.live.open_session(SessionCache("another", 8))


def test_neither_order_nor_files_nor_batches_matter(tmp_path: Path) -> None:
    straight, shuffled = LiveStore(tmp_path / "a"), LiveStore(tmp_path / "b")
    events = rows()
    nearline(straight).run(write(tmp_path / "e.jsonl", events))
    mixed = random.Random(3).sample(events, len(events))
    for n in range(4):
        folder = tmp_path / "parts"
        folder.mkdir(exist_ok=True)
        write(folder / f"{n}.jsonl", mixed[n::4])
        nearline(shuffled).run(folder)
    assert same(shuffled, straight)


def test_users_without_events_keep_the_daily_list(tmp_path: Path) -> None:
    store = LiveStore(tmp_path / "s")
    assert nearline(store).run(write(tmp_path / "e.jsonl", [])).refreshed == 0
    row = store.list_of("u0", "just_for_you")
    assert row is not None
    assert [item for item, *_ in row.value] == ["i05", "i04", "i03"]


def test_a_new_model_refreshes_the_users_whose_events_it_does_not_know(tmp_path: Path) -> None:
    store = LiveStore(tmp_path / "s")
    nearline(store).run(write(tmp_path / "e.jsonl", rows()))
    newer = Nearline(live_day("model-2"), store, history, CONFIG)
    due = {user for user, _ in store.due(99)}
    assert due == {f"u{n}" for n in range(5)}
    while newer.refresh():
        pass
    assert state(store)["items of u1"] == [item for item, _ in recomputed("u1", rows())]


# ---------------------------------------------------------------------------------------- over HTTP
def first_refreshed(client: TestClient, user: str, seconds: float = 60) -> dict[str, Any]:
    """The user's list as soon as it is one of the live store; fails when the refresh does not come."""
    until = time.monotonic() + seconds
    while (answer := client.get(f"/v1/users/{user}/recommendations").json())["served_by"] != "u2i":
        assert time.monotonic() < until, f"no list of {user} was refreshed in {seconds:.0f} s: {answer}"
        time.sleep(0.01)
    return answer


def test_events_that_are_posted_change_list_and_context(tmp_path: Path) -> None:
    store = LiveStore(tmp_path / "s")
    holder = Holder(tmp_path, live_day(), None, store, CONFIG, lambda _: history)
    events = [e for e in rows() if e["user_id"] == "u1"]
    with TestClient(create_app(holder, EASY, KeyRing()), base_url=LOCAL) as client:
        before = client.get("/v1/users/u1").json()
        sent = client.post("/v1/events", json={"events": [*events, {**events[0], "event_time": "soon"}]})
        assert sent.status_code == 202
        assert sent.json()["accepted"] == len({tuple(e.values()) for e in events})
        assert sent.json()["refused"] == [{"position": len(events), "reason": "bad_time"}]
        answer = first_refreshed(client, "u1")
        assert items(answer) == [item for item, _ in recomputed("u1", rows())][:20]
        after = client.get("/v1/users/u1").json()
        assert after["profile"] == before["profile"]
        newest = max(
            (e for e in events if e["event_type"] != "view" and e["item_id"] != "gone"),
            key=lambda e: e["event_time"],
        )
        assert after["recent"][0]["item_id"] == newest["item_id"]
        bought = {e["item_id"] for e in events if e["event_type"] != "view"} | {"i02"}  # i02: before the day
        assert {item["item_id"] for item in answer["items"] if item["owned"]} == bought & set(items(answer))
        live = client.post("/v1/recommend", json={"user_id": "u1", "n": 20}).json()
        assert items(live) == items(answer)
        assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 0


def test_a_server_that_stays_with_one_day_takes_no_events() -> None:
    with TestClient(create_app(Holder(Path("x"), live_day()), EASY, KeyRing()), base_url=LOCAL) as client:
        assert client.post("/v1/events", json={"events": rows(count=5)}).status_code == 409
        assert client.get("/v1/about").json()["takes_events"] is False


# ------------------------------------------------------------------------------------------ SIGKILL
KILLER = """
import os, random, signal, sqlite3, sys, time
from contextlib import closing
from pathlib import Path
import torch
torch.set_num_threads(1)
from sigma_core.serving.live_store import LiveStore
from sigma_core.serving.nearline import Nearline
from sigma_core.serving.session_cache import SessionCache
from tests.serving.test_nearline import CONFIG, history, live_day
live = live_day()
lists = {span: live._published_list(*span) for span in live._lists.values()}
live._published_list = lambda *span: lists[span]  # a forked process must not call polars
events, path, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rng, landed, wait = random.Random(11), 0, 0.02
stood = []
while landed < kills:
    child = os.fork()
    if child == 0:
        Nearline(live, LiveStore(path), history, CONFIG).run(events)
        os._exit(0)
    time.sleep(rng.uniform(0, wait))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        landed += 1
        wait = min(wait * 1.3, 0.4)
        with closing(sqlite3.connect(path)) as store:
            tables = {name for name, in store.execute("SELECT name FROM sqlite_master")}
            asked = [t for t in ("events", "users") if t in tables]
            stood.append("+".join(str(store.execute(f"SELECT count(*) FROM {t}").fetchone()[0]) for t in asked) or "-")
    else:
        wait /= 2
print(*stood)
"""


def test_killed_at_any_moment_it_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    events = write(tmp_path / "e.jsonl", rows(5, 120, 12))
    undisturbed = LiveStore(tmp_path / "calm" / "s")
    want = nearline(undisturbed).run(events)
    path = tmp_path / "killed" / "s"
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(events), str(path), "20"],
        capture_output=True, text=True, check=True, timeout=240, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    stood = done.stdout.split()
    assert len(stood) == 20
    assert len(set(stood)) >= 4, f"kills hit several places on the way: {stood}"
    killed = LiveStore(path)
    nearline(killed).run(events)
    assert killed.counts() == undisturbed.counts()
    assert killed.counts()["events"] == want.new
    assert killed.counts()["due"] == 0
    assert same(killed, undisturbed, 12)


def test_a_file_that_is_still_being_copied_holds_up_no_other(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(b"PAR1, half of it")
    write(tmp_path / "in" / "b.jsonl", rows())
    done = Nearline(live_day(), LiveStore(tmp_path / "live.sqlite"), history, CONFIG).run(tmp_path / "in")
    assert done.new > 0
    assert ["a.parquet is not a readable" in why for why in done.unread] == [True]
