"""Recommendations over a tiny day: what a request is taken for, and the list it gets."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from sigma_core.config import HttpConfig
from sigma_core.instruction.routing import Route
from sigma_core.instruction.tasks import TASKS
from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.schemas import Answer
from sigma_core.serving.http.security import KeyRing
from tests.serving.live_world import holder, live_day

KEY = "a-key-that-is-long-enough"
LOCAL = "http://localhost"
EASY = HttpConfig(deadline_ms=20_000, rate_per_minute=100_000, rate_burst=100_000)


def ask(client: TestClient, **wish: Any) -> dict[str, Any]:
    answer = client.post("/v1/recommend", json=wish)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert keeps_schema(body)
    return body


def keeps_schema(answer: dict[str, Any]) -> bool:
    """Answers are written without validation: they must have the fields of `Answer`, no more and no less."""
    read = Answer.model_validate(answer, strict=True)
    shown = {name for item in answer["items"] for name in item}
    return set(answer) == set(Answer.model_fields) and (
        not shown or shown == set(type(read.items[0]).model_fields)
    )


def items(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


# -------------------------------------------------------------------------------------- recommend
def test_a_known_user_is_answered_by_the_model(client: TestClient) -> None:
    answer = ask(client, user_id="u0", n=4)
    assert (answer["served_by"], answer["user_known"], answer["task"]) == ("model", True, "just_for_you")
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]
    assert len({item["title"] for item in answer["items"]}) == 4, "one item of a text group"
    for item in answer["items"]:
        assert item["score"] == pytest.approx(item["prefix_probability"] * item["item_probability"], rel=1e-4)
        assert item["owned"] == (item["item_id"] in {"i00", "i01"})


@pytest.mark.parametrize("wish", [{}, {"user_id": "never seen"}, {"profile": "two adults"}, {"history": []}])
def test_cold_users_are_answered(client: TestClient, wish: dict[str, Any]) -> None:
    answer = ask(client, **wish)
    assert answer["served_by"] == "model"
    assert answer["user_known"] == (wish == {"profile": "two adults"})
    assert answer["items"]


def test_an_inline_history_is_read(client: TestClient) -> None:
    history = [{"item_id": "i07", "days_ago": 1, "count": 3}, {"item_id": "unheard of"}]
    answer = ask(client, profile="two adults", history=history, n=23)
    assert answer["user_known"]
    assert [item["item_id"] for item in answer["items"] if item["owned"]] in ([], ["i07"])
    assert [item["score"] for item in answer["items"]] != [
        item["score"] for item in ask(client, n=23)["items"]
    ]


@pytest.mark.parametrize(
    ("wish", "task", "words"),
    [
        ({"query": "taco night"}, "query", "taco night"),
        ({"category": "Coffee"}, "category", "coffee"),
        ({"task": "holiday"}, "holiday", "Halloween"),
        ({"task": "season"}, "season", "autumn"),
        ({"instruction": "Halloween is coming"}, "just_for_you", "Halloween"),
    ],
)
def test_a_request_is_understood(client: TestClient, wish: dict[str, str], task: str, words: str) -> None:
    answer = ask(client, user_id="u1", **wish)
    assert answer["task"] == task
    assert words in answer["instruction"]
    assert words in answer["focus"]


@pytest.mark.parametrize(
    ("filters", "allowed"),
    [
        ({"categories": ["coffee", "candy"]}, lambda n: n % 3 in (0, 2)),
        ({"categories": ["coffee"], "brands": ["private brand"]}, lambda n: n % 3 == 0 and n % 2),
        ({"only_new": True}, lambda n: n >= 20),
        ({"price_bands": ["mid"], "exclude_items": ["i05", "?"]}, lambda n: n not in (0, 2, 5)),
        ({"owned": "hide_items"}, lambda n: n not in (0, 1)),
        ({"without": ["coffee"], "only": ["candies", "soft drinks"]}, lambda n: n % 3),
        ({"min_price": 4, "max_price": 7.5}, lambda n: 4 <= n <= 7),
        ({"only_items": ["i04", "i05", "?"]}, lambda n: n in (4, 5)),
    ],
)
@pytest.mark.parametrize("deadline", [20_000, 1])
def test_filters_hold_whoever_makes_the_list(
    client: TestClient, filters: dict[str, Any], allowed: Any, deadline: int
) -> None:
    answer = ask(client, user_id="u0", n=23, filters=filters, deadline_ms=deadline)
    assert answer["items"]
    assert all(allowed(int(item[1:])) for item in items(answer))


def test_discover_hides_what_reads_like_something_owned(client: TestClient) -> None:
    assert not {"i02", "i03"} & set(items(ask(client, user_id="u1", task="discover", n=23)))


def test_constraints_in_words_are_filters_and_are_told(client: TestClient) -> None:
    wish = {"instruction": "something for tonight, no coffee, under $8", "n": 23}
    answer = ask(client, user_id="u1", **wish)
    assert answer["understood"] == ["nothing from coffee", "price at most 7.99"]
    assert answer["instruction"] == "something for tonight"
    assert items(answer)
    assert all(n % 3 and n < 8 for n in (int(item[1:]) for item in items(answer)))
    assert ask(client, query="soft drinks over $9")["focus"] == "soft drinks"
    assert ask(client, instruction="no fuss tonight")["understood"] == []


def test_a_price_in_words_that_filters_nothing_is_told(client: TestClient) -> None:
    """Or a list for "unter 5 Euro" would be taken for one of what costs less."""
    assert "no price was filtered by '5 Euro'" in ask(client, query="Kaffee unter 5 Euro")["note"]
    assert not ask(client, query="Kaffee unter 5 Euro", filters={"max_price": 5})["note"]
    assert not ask(client, query="coffee under 5 EUR")["note"]


def test_an_id_may_hold_a_slash(client: TestClient) -> None:
    assert client.get("/v1/users/DE%2F1/recommendations").json()["items"]
    for path, what in (("items/DE-4711%2FXL/similar", "item"), ("users/DE%2F1", "user")):
        assert f"no such {what}" in client.get(f"/v1/{path}").text


def test_free_words_are_taken_for_a_task_and_the_answer_says_how_surely(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = client.app.state.service.holder.live.reader  # type: ignore[attr-defined]
    monkeypatch.setattr(reader, "route", lambda text: Route("discover", 0.97 if "surprise" in text else 0.31))
    sure = ask(client, user_id="u1", instruction="surprise me", n=23)
    assert sure["taken_for"] == {"task": "discover", "confidence": 0.97, "followed": True}
    assert sure["task"] == "discover"
    assert not {"i02", "i03"} & set(items(sure)), "its preset: nothing that reads like something owned"
    unsure = ask(client, user_id="u1", instruction="blah", n=23)
    assert unsure["taken_for"] == {"task": "discover", "confidence": 0.31, "followed": False}
    assert (unsure["task"], unsure["instruction"]) == ("just_for_you", "blah")
    assert {"i02", "i03"} & set(items(unsure))
    assert ask(client, task="longtail", instruction="surprise me")["taken_for"] is None


def test_words_that_name_nothing_are_refused(client: TestClient) -> None:
    refused = client.post("/v1/recommend", json={"filters": {"without": ["motor oil"]}})
    assert refused.status_code == 422
    assert "motor oil" in refused.json()["message"]


def test_filters_that_nothing_passes_give_an_empty_list_that_says_so(client: TestClient) -> None:
    answer = ask(client, instruction="nothing from coffee", filters={"only": ["coffee"], "only_new": True})
    assert answer["items"] == []
    assert answer["note"] == "no item passes the filters: only; only_new; nothing from coffee; loosen one"
    assert ask(client, filters={"departments": ["Grocery"]})["items"], "in any case"


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (
            {"filters": {"categories": ["cofee"]}},
            "no 'cofee', it has candy, coffee, soft drinks. Did you mean 'coffee'?",
        ),
        ({"filters": {"min_price": 10, "max_price": 1}}, "no price is at least 10 and at most 1"),
        ({"query": "soda", "category": "coffee"}, "not both"),
        ({"user_id": "u0", "history": []}, "body: give user_id, or profile and history, not both"),
        ({"task": "discovery"}, "Did you mean 'discover'?"),
        ({"task": "query"}, "needs query"),
    ],
)
def test_a_request_that_contradicts_itself_or_the_catalog_says_how(
    client: TestClient, wish: dict[str, Any], told: str
) -> None:
    refused = client.post("/v1/recommend", json=wish)
    assert refused.status_code == 422
    assert told in refused.json()["message"]


def test_what_is_not_json_is_told(client: TestClient) -> None:
    def said(content: bytes, kind: str = "application/json") -> str:
        answer = client.post("/v1/recommend", content=content, headers={"content-type": kind})
        return str(answer.json()["message"])

    assert said(b'{"n": ') == "the body is not JSON from character 6 on"
    assert "send JSON with content-type" in said(b"{}", "text/plain")
    assert "/openapi.json" in client.get("/nowhere").json()["message"]


def test_an_explanation_is_the_list_taken_apart(client: TestClient) -> None:
    wish = {"user_id": "u0", "n": 5, "steps": {"num_prefixes": 2, "items_per_prefix": 3}}
    answer = ask(client, explain=True, **wish)
    why = answer["explanation"]
    assert (why["num_prefixes"], why["items_per_prefix"], len(why["prefixes"])) == (2, 3, 2)
    inside = {i["item_id"]: i["score"] for prefix in why["prefixes"] for i in prefix["items"]}
    assert {
        i["item_id"]: pytest.approx(i["score"], rel=1e-4) for i in answer["items"]
    }.items() <= inside.items()
    assert why["covered"] == pytest.approx(sum(p["probability"] for p in why["prefixes"]), rel=1e-4)
    assert ask(client, **wish)["explanation"] is None
    listed = [i for prefix in why["prefixes"] for i in prefix["items"]]
    assert all(
        i["nearest_history"].startswith("Title") and -1.001 <= i["nearest_cosine"] <= 1.001 for i in listed
    )
    by_mass = ask(client, explain=True, user_id="u0", steps={"num_prefixes": 5, "prefix_mass": 0.01})[
        "explanation"
    ]
    assert (len(by_mass["prefixes"]), by_mass["prefix_mass"]) == (1, 0.01)
    cold = ask(client, explain=True, steps={"num_prefixes": 1})["explanation"]
    assert cold["prefixes"][0]["items"][0]["nearest_history"] is None


def test_a_batch_answers_in_order_and_names_the_request_that_is_wrong(client: TestClient) -> None:
    wishes = [{"user_id": "u0"}, {"query": "soda"}, {"user_id": "u1", "n": 2}]
    answers = client.post("/v1/recommend:batch", json={"requests": wishes}).json()["answers"]
    assert [items(a) for a in answers] == [items(ask(client, **wish)) for wish in wishes]
    wrong = client.post("/v1/recommend:batch", json={"requests": [{}, {"task": "fly"}]})
    assert wrong.status_code == 422
    assert wrong.json()["message"].startswith("request 1: unknown task 'fly'")


def test_requests_that_arrive_together_share_a_forward_pass() -> None:
    live = live_day()
    sizes = []
    answer = live.answer

    def counting(batch: Any) -> Any:
        sizes.append(len(batch))
        return answer(batch)

    live.answer = counting  # type: ignore[method-assign]
    app = create_app(holder(live), EASY.model_copy(update={"batch_wait_ms": 50.0}), KeyRing())

    async def many() -> list[httpx.Response]:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
                return await asyncio.gather(
                    *(client.post("/v1/recommend", json={"user_id": f"u{n % 3}"}) for n in range(8))
                )

    assert {response.status_code for response in asyncio.run(many())} == {200}
    assert sum(sizes) == 8
    assert len(sizes) < 8


def test_a_tasks_preset_fills_what_the_request_leaves_open(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "discover", replace(TASKS["discover"], preset={"num_prefixes": 2}))
    wish = {"user_id": "u1", "task": "discover", "explain": True}
    assert ask(client, **wish)["explanation"]["num_prefixes"] == 2
    assert ask(client, **wish, steps={"num_prefixes": 3})["explanation"]["num_prefixes"] == 3
    assert ask(client, user_id="u1", explain=True)["explanation"]["num_prefixes"] != 2
