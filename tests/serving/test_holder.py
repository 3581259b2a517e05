"""A newer published day takes over between two requests; none is dropped, and a day that cannot be served changes nothing."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from sigma_core.artifacts import ArtifactError
from sigma_core.serving.holder import Holder
from sigma_core.serving.http.app import _look_out, create_app
from sigma_core.serving.http.security import KeyRing
from sigma_core.serving.live import LiveDay
from sigma_core.serving.runtime import RequestError, check_whole
from tests.serving.live_world import live_day
from tests.serving.test_http import EASY, LOCAL


class Root:
    """What is published, as the holder sees it."""

    def __init__(self) -> None:
        self.model = "model-1"
        self.loads = 0
        self.now = 1000.0
        self.broken: Exception | None = None

    def load(self, root: Path, as_of: str | None = None) -> LiveDay:
        self.loads += 1
        if self.broken is not None:
            raise self.broken
        return live_day(self.model)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Root:
    made = Root()
    module = "sigma_core.serving.holder"
    monkeypatch.setattr(f"{module}.load_live_day", made.load)
    monkeypatch.setattr(f"{module}.pick_day", lambda store, as_of: "2024-10-28")
    monkeypatch.setattr(f"{module}.published", lambda store, day: made.model)
    monkeypatch.setattr(f"{module}.monotonic", lambda: made.now)
    return made


def test_it_loads_only_what_is_new(root: Root) -> None:
    holder = Holder(Path("x"), live_day())
    assert not holder.refresh()
    assert root.loads == 0
    root.model = "model-2"
    assert holder.refresh()
    assert (holder.live.model, holder.swaps) == ("model-2", 1)
    assert not holder.refresh()


def test_what_cannot_be_served_leaves_the_served_day_and_is_tried_again_when_it_changes(root: Root) -> None:
    holder = Holder(Path("x"), live_day())
    root.model, root.broken = "half published", RequestError("the checkpoint was trained on another base")
    assert not holder.refresh()
    assert not holder.refresh()
    assert (holder.live.model, root.loads) == ("model-1", 1), "not loaded again and again"
    root.model, root.broken = "whole", None
    assert holder.refresh()
    assert holder.live.model == "whole"


def test_a_failure_that_may_pass_is_tried_again_after_a_pause_that_grows(root: Root) -> None:
    holder = Holder(Path("x"), live_day())
    root.model, root.broken = "model-2", OSError("no space left on device")
    tried = []
    for second in range(0, 1000, 10):
        root.now = 1000.0 + second
        before = root.loads
        assert not holder.refresh()
        tried += [second] * (root.loads - before)
    assert tried == [0, 60, 180, 420, 900]
    root.now, root.broken = 3000.0, None
    assert holder.refresh()
    root.model, root.broken = "model-3", MemoryError()
    assert not holder.refresh()
    root.now, root.broken = 3060.0, None
    assert holder.refresh(), "the pause of another day is its own"


@pytest.mark.parametrize("error", [KeyError("i05"), ValueError("shapes"), RuntimeError("sizes of tensors")])
def test_whatever_breaks_a_newer_day_the_served_one_stays_and_looking_out_goes_on(
    root: Root, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    holder = Holder(Path("x"), live_day())
    root.model, root.broken = "half published", error
    assert not holder.refresh()
    assert holder.live.model == "model-1"
    assert f"{type(error).__name__} at test_holder.py:" in caplog.text
    assert str(error) not in caplog.text, "words of others may hold a user's data"


def test_looking_out_outlives_any_failure(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, calls = Holder(Path("x"), live_day()), []

    def fails() -> bool:
        calls.append(1)
        raise KeyError("i05")

    monkeypatch.setattr(holder, "refresh", fails)

    async def some() -> None:
        task = asyncio.create_task(_look_out(holder, 0.001))
        while len(calls) < 3:
            assert not task.done()
            await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(asyncio.wait_for(some(), 20))


def test_an_index_with_items_that_the_catalog_lacks_says_what_to_do() -> None:
    check_whole(Path("var"), "2024-10-28", ["a", "b"], "item_catalog", {"a", "b", "new"})
    with pytest.raises(
        RequestError, match=r"2 items that its item_catalog lacks.* b, c.*materialize --as-of 2024-10-28"
    ):
        check_whole(Path("var"), "2024-10-28", ["a", "b", "c"], "item_catalog", {"a"})


def test_a_vanished_artifact_is_no_crash(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(store: Any, day: str) -> str:
        raise ArtifactError("no manifest")

    monkeypatch.setattr("sigma_core.serving.holder.published", missing)
    assert not Holder(Path("x"), live_day()).refresh()


def test_no_request_is_dropped_while_the_model_is_swapped(root: Root) -> None:
    holder = Holder(Path("x"), live_day())
    app = create_app(holder, EASY.model_copy(update={"reload_seconds": 0.02}), KeyRing())

    async def load() -> list[httpx.Response]:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:

                async def client_of(user: str) -> list[httpx.Response]:
                    answers = []
                    for number in range(400):
                        answers.append(await client.post("/v1/recommend", json={"user_id": user, "n": 3}))
                        if number == 5:
                            root.model = "model-2"
                        if len(answers) > 12 and answers[-1].json()["model"] == "model-2":
                            break
                    return answers

                parts = await asyncio.gather(*(client_of(f"u{n % 3}") for n in range(6)))
                return [answer for part in parts for answer in part]

    answers = asyncio.run(load())
    assert {answer.status_code for answer in answers} == {200}
    bodies = [answer.json() for answer in answers]
    assert {body["served_by"] for body in bodies} == {"model"}
    assert {body["model"] for body in bodies} == {"model-1", "model-2"}
    assert holder.swaps == 1
