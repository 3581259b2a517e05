"""The API and nearline on a root that the pipeline made: same lists as the command line, and events change them."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from sigma_core.config import HttpConfig
from sigma_core.instruction.routing import NAMED
from sigma_core.serving.holder import Holder, load_live_day
from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.security import KeyRing
from sigma_core.serving.live_store import LiveStore
from sigma_core.serving.reading import RequestReader
from sigma_core.serving.runtime import load_recommender
from tests.e2e.slice import DAY, sigma

pytestmark = pytest.mark.e2e
FREE_INSTRUCTIONS = Path(__file__).parents[1] / "instruction" / "free_instructions.yaml"
LEAST = HttpConfig().route_confidence


def test_served_lists_are_those_of_the_command_line_and_follow_events(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    live = load_live_day(root)
    holder = Holder(root, live, None, LiveStore.of_root(root))
    config = HttpConfig(deadline_ms=30_000)
    with TestClient(create_app(holder, config, KeyRing()), base_url="http://localhost") as client:
        for wish in (
            {},
            {"task": "discover"},
            {"query": "ice cream"},
            {"category": "coffee"},
            {"task": "holiday"},
        ):
            want = load_recommender(root).recommend("user003", **wish, top_n=5)
            answer = client.post("/v1/recommend", json={"user_id": "user003", "n": 5, **wish}).json()
            assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in want], wish
        found = client.get("/v1/search", params={"q": "ice cream", "n": 3}).json()["items"]
        assert "ice cream" in found[0]["title"].lower()

        surprise = client.post(
            "/v1/recommend", json={"user_id": "user003", "instruction": "surprise me"}
        ).json()
        assert surprise["task"] == surprise["taken_for"]["task"] == "discover"
        _free_words_find_their_task(live.reader)

        bought = live.item_ids[5]
        rows = [
            {"user_id": "user003", "item_id": bought, "event_time": f"{DAY + timedelta(days=1)}T10:00:00"}
        ]
        events = tmp_path / "events.jsonl"
        events.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *rows, {"user_id": "user003"})))
        done = sigma("nearline", "--root", str(root), "--events", str(events))
        assert "1 new events, 1 known, 1 refused; 1 users refreshed" in done.stdout
        again = sigma("nearline", "--root", str(root), "--events", str(events))
        assert "0 new events, 0 known, 0 refused; 0 users refreshed" in again.stdout
        card = client.get("/v1/users/user003").json()
        assert (card["recent"][0]["item_id"], card["recent"][0]["days_ago"]) == (bought, 0)
        assert client.get("/v1/users/user003/recommendations").json()["served_by"] == "u2i"


def _free_words_find_their_task(reader: RequestReader) -> None:
    """What people type: what is taken for a task with confidence is right nine times in ten, small talk rarely for any."""
    said = yaml.safe_load(FREE_INSTRUCTIONS.read_text())
    small_talk = [reader.route(str(text)).confidence for text in said.pop("nothing")]
    assert sum(confidence < LEAST for confidence in small_talk) >= 4
    right, sure = 0, 0
    for task, texts in said.items():
        for text in texts:
            route = reader.route(text)
            sure += route.confidence >= LEAST
            right += route.confidence >= LEAST and route.task == ("query" if task in NAMED else task)
    assert right >= 0.85 * sure
    assert sure >= 0.5 * sum(map(len, said.values()))


def test_a_wrong_path_of_events_is_one_line(made: tuple[Path, str]) -> None:
    done = sigma("nearline", "--root", str(made[0]), "--events", "nowhere.jsonl", code=1)
    assert done.stderr.startswith("error: ")
    assert "nowhere.jsonl" in done.stderr
