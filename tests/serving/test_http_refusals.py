"""What the API refuses, and what a client and the log never see."""

import json
import logging
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.schemas import BatchRequest
from sigma_core.serving.http.security import KeyRing
from tests.serving.live_world import holder, live_day
from tests.serving.test_http import EASY, KEY, LOCAL


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b'{"n": 0}', 422),
        (b'{"n": NaN}', 422),
        (b'{"surprise": 1}', 422),
        (b'{"\\ud800": 1}', 422),
        (b'{"query": "\\ud800"}', 422),
        (b'{"user_id": "u0", "history": []}', 422),
        (b'{"task": "query"}', 422),
        (b'{"category": "shoes"}', 422),
        (b"\xff\xfe", 400),
        (b"[" * 5000, 400),
        (b'{"user_id": "' + b"a" * 300_000 + b'"}', 413),
    ],
)
def test_a_bad_body_is_refused_with_a_reason_and_an_id(
    client: TestClient, content: bytes, status: int
) -> None:
    answer = client.post("/v1/recommend", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"code", "message", "request_id"}
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text


def test_a_request_id_is_kept_when_it_is_harmless(client: TestClient) -> None:
    assert (
        client.get("/healthz", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    )
    given = client.get("/healthz", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", given)


def test_without_keys_only_local_host_names_are_answered(client: TestClient) -> None:
    assert client.get("/v1/about", headers={"host": "evil.example:8000"}).status_code == 400
    assert client.get("/v1/about", headers={"host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/v1/about", headers={"host": "[::1]:8000"}).status_code == 200


def test_with_keys_every_route_with_data_needs_one() -> None:
    with TestClient(create_app(holder(), EASY, KeyRing((KEY,))), base_url="http://shop.example") as client:
        for path in ("/v1/about", "/v1/users", "/metrics", "/openapi.json", "/v1/users/u0", "/nowhere"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers={"x-api-key": KEY + "x"}).status_code == 401, path
        assert client.post("/v1/recommend", json={}).status_code == 401
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/about", headers={"x-api-key": KEY}).status_code == 200
        assert client.get("/metrics", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_key_that_asks_too_often_is_told_when_to_come_back() -> None:
    config = EASY.model_copy(update={"rate_per_minute": 6, "rate_burst": 2})
    with TestClient(create_app(holder(), config, KeyRing()), base_url=LOCAL) as client:
        codes = [client.get("/v1/about").status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        assert int(client.get("/v1/about").headers["retry-after"]) in range(1, 12)
        assert client.get("/healthz").status_code == 200


def test_no_other_origin_may_read_answers_unless_configured(client: TestClient) -> None:
    origin = {"origin": "https://shop.example"}
    assert "access-control-allow-origin" not in client.get("/v1/about", headers=origin).headers
    config = EASY.model_copy(update={"cors_origins": ("https://shop.example",)})
    with TestClient(create_app(holder(), config, KeyRing()), base_url=LOCAL) as opened:
        allowed = opened.get("/v1/about", headers=origin).headers["access-control-allow-origin"]
        assert allowed == "https://shop.example"


def test_a_fault_shows_neither_trace_nor_user_in_answer_or_log(caplog: pytest.LogCaptureFixture) -> None:
    live = live_day()

    def fault(wish: Any, least: float) -> Any:
        raise KeyError(wish.user_id)

    live.prepare = fault  # type: ignore[method-assign]
    with (
        caplog.at_level(logging.INFO, "sigma.serve"),
        TestClient(create_app(holder(live), EASY, KeyRing()), base_url=LOCAL) as client,
    ):
        answer = client.post("/v1/recommend", json={"user_id": "secret-person"})
        client.get("/v1/users/secret-person")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "KeyError" not in answer.text
    assert "KeyError" in caplog.text, "the log says what it was"
    assert "secret-person" not in "".join(r.getMessage() for r in caplog.records if r.name == "sigma.serve")
    assert "/v1/users/{user_id}" in caplog.text


def test_a_body_of_nothing_but_errors_tells_one_of_them() -> None:
    """Collecting 125,000 of them held up everybody else for seconds."""
    wrong = {"requests": [{"filters": {"only_items": [1] * 4000}, "history": [{}] * 500}] * 32}
    with pytest.raises(ValidationError) as told:
        BatchRequest.model_validate(wrong)
    assert told.value.error_count() <= 2


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_page_of_another_site_changes_nothing(client: TestClient, kind: str | None) -> None:
    """A browser sends these without asking; JSON it asks for first, and is told no."""
    event = {"user_id": "u0", "item_id": "i00", "event_time": "2024-10-29T00:00:00"}
    headers = {"origin": "http://elsewhere.example"} | ({"content-type": kind} if kind else {})
    body = json.dumps({"events": [event]}).encode()
    assert client.post("/v1/events", content=body, headers=headers).status_code == 422
    asks = {"origin": headers["origin"], "access-control-request-method": "POST"}
    answer = client.options("/v1/events", headers=asks)
    assert "access-control-allow-origin" not in answer.headers
