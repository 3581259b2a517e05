"""The API asked for more than it can do: what is answered from prepared lists, what is told to come back, and that nothing grows."""

import asyncio
import threading
from typing import Any

import httpx

from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.security import KeyRing
from sigma_core.serving.live import LiveDay
from tests.serving.live_world import holder, live_day
from tests.serving.test_http import EASY, LOCAL, items, keeps_schema


class Stuck(LiveDay):
    """A day whose model answers once it is let go."""

    go: threading.Event

    def answer(self, batch: Any) -> Any:
        self.go.wait(10)
        return super().answer(batch)


def stuck() -> Stuck:
    live = live_day()
    live.__class__ = Stuck
    assert isinstance(live, Stuck)
    live.go = threading.Event()
    return live


def never(texts: list[str]) -> Any:
    raise AssertionError(f"encoded {texts}")


def test_past_a_full_queue_prepared_lists_answer_at_once_and_nothing_more_waits() -> None:
    live = stuck()
    config = EASY.model_copy(update={"max_queue": 3, "max_batch": 1})
    app = create_app(holder(live), config, KeyRing())
    service = app.state.service

    async def overload() -> tuple[list[httpx.Response], list[httpx.Response]]:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:

                def asked(user: str, **more: Any) -> Any:
                    return client.post("/v1/recommend", json={"user_id": user, "n": 2, **more})

                within = [asyncio.create_task(asked("u0")) for _ in range(4)]  # a batch of 1, a queue of 3
                while service.inside < 4:
                    await asyncio.sleep(0)
                beyond = [await asked(("u0", "u1")[n % 2]) for n in range(20)]
                beyond.append(await asked("u0", filters={"only_new": True}))
                live.reader._encode = never  # free words are not read for a task while the event loop waits
                beyond.append(await asked("u0", instruction="surprise me with something"))
                assert service.inside == 4
                assert service.batcher.waiting <= 3
                assert not any(task.done() for task in within)
                live.go.set()
                return await asyncio.gather(*within), beyond

    within, beyond = asyncio.run(overload())
    assert {answer.status_code for answer in (*within, *beyond)} == {200}
    assert [answer.json()["served_by"] for answer in within] == ["model"] * 4
    told = [answer.json() for answer in beyond]
    assert [one["served_by"] for one in told[:20]] == ["u2i", "popularity"] * 10
    assert [items(one) for one in told[:2]] == [["i05", "i04"], ["i00", "i02"]]
    assert told[20]["served_by"] == "popularity"  # filters hold for what is shed, too
    assert all(keeps_schema(one) and "waiting" in one["note"] for one in told)
    assert service.inside == 0


def test_more_requests_than_may_be_in_flight_are_told_to_come_back() -> None:
    live = stuck()
    app = create_app(holder(live), EASY.model_copy(update={"max_in_flight": 2}), KeyRing())

    async def overload() -> list[httpx.Response]:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
                within = [asyncio.create_task(client.post("/v1/recommend", json={})) for _ in range(2)]
                while app.state.service.inside < 2:
                    await asyncio.sleep(0)
                refused, alive = await client.get("/v1/about"), await client.get("/healthz")
                live.go.set()
                return [refused, alive, *await asyncio.gather(*within), await client.get("/v1/about")]

    answers = asyncio.run(overload())
    assert [answer.status_code for answer in answers] == [429, 200, 200, 200, 200]
    assert (answers[0].json()["code"], answers[0].headers["retry-after"]) == ("busy", "1")
