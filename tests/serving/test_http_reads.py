"""Lists that no model makes, and what else can be read: prepared lists, items, users, operations."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.security import KeyRing
from sigma_core.serving.live import LiveDay
from tests.serving.live_world import FakeEncoder, holder, live_day
from tests.serving.test_http import EASY, LOCAL, ask, items, keeps_schema


# --------------------------------------------------------------------------------------- fall back
class Broken(LiveDay):
    """A day whose model always fails."""

    def answer(self, batch: Any) -> Any:
        raise RuntimeError("the user u0 secretly likes candy")


def broken() -> LiveDay:
    live = live_day()
    live.__class__ = Broken
    return live


def test_without_the_model_u2i_answers_then_popularity(caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(holder(broken()), EASY, KeyRing()), base_url=LOCAL) as client:
        known = ask(client, user_id="u0", n=2)
        assert (known["served_by"], items(known)) == ("u2i", ["i05", "i04"])
        assert "failed" in known["note"]
        listless = ask(client, user_id="u1", n=2)
        assert (listless["served_by"], items(listless)) == ("popularity", ["i00", "i02"])
        assert ask(client, user_id="u0", filters={"only_new": True})["served_by"] == "popularity"
        assert client.get("/v1/search", params={"q": "soda"}).status_code == 200
    assert "secretly" not in caplog.text


def test_a_spent_budget_is_answered_from_the_prepared_list(client: TestClient) -> None:
    answer = ask(client, user_id="u0", deadline_ms=1)
    assert answer["served_by"] in ("u2i", "model")
    if answer["served_by"] == "u2i":
        assert "budget" in answer["note"]


# -------------------------------------------------------------------------------------- other reads
def test_prepared_lists(client: TestClient) -> None:
    answer = client.get("/v1/users/u0/recommendations", params={"n": 2}).json()
    assert (answer["served_by"], items(answer)) == ("u2i", ["i05", "i04"])
    assert keeps_schema(answer)
    cold = client.get("/v1/users/nobody/recommendations").json()
    assert (cold["served_by"], cold["user_known"], cold["items"][0]["item_id"]) == (
        "popularity",
        False,
        "i00",
    )
    assert client.get("/v1/users/u0/recommendations", params={"task": "query"}).status_code == 422


def test_similar_items_leave_out_the_item_and_what_reads_the_same(client: TestClient) -> None:
    found = client.get("/v1/items/i04/similar", params={"n": 30}).json()["items"]
    assert not {"i04", "i05"} & {item["item_id"] for item in found}
    assert [item["score"] for item in found] == sorted((item["score"] for item in found), reverse=True)
    assert len(found) == 11, "one of each of the other text groups"
    assert client.get("/v1/items/none/similar").status_code == 404


def test_search_finds_the_text_it_is_given(client: TestClient) -> None:
    assert client.get("/v1/search", params={"q": "text 7"}).json()["items"][0]["item_id"] == "i07"


@pytest.mark.parametrize("blank", ["", " ", "\r", "\u2003"])
def test_blank_words_are_no_search_and_no_query(client: TestClient, blank: str) -> None:
    assert client.get("/v1/search", params={"q": blank}).status_code == 422
    assert client.post("/v1/recommend", json={"task": "query", "query": blank}).status_code == 422
    assert ask(client, query=blank, instruction=blank)["task"] == "just_for_you"


def test_users_and_their_cards(client: TestClient) -> None:
    assert client.get("/v1/users", params={"starts_with": "u", "n": 2}).json() == {
        "total": 3,
        "user_ids": ["u0", "u1"],
    }
    card = client.get("/v1/users/u0").json()
    assert card["profile"] == "profile of u0"
    assert [(e["item_id"], e["days_ago"], e["count"]) for e in card["recent"]] == [
        ("i00", 1, 2),
        ("i01", 1, 2),
    ]
    assert client.get("/v1/users/nobody").status_code == 404


def test_operations(client: TestClient) -> None:
    ask(client, user_id="u0", query="soda")
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["model"] == "model-1"
    metrics = client.get("/metrics").text
    assert 'sigma_served_total{served_by="model"}' in metrics
    assert 'sigma_model_info{day="2024-10-28",model="model-1"} 1.0' in metrics
    assert "u0" not in metrics
    assert "soda" not in metrics
    assert client.get("/v1/about").json()["categories"] == ["candy", "coffee", "soft drinks"]


def test_it_is_not_ready_before_it_started() -> None:
    client = TestClient(create_app(holder(), EASY, KeyRing()), base_url=LOCAL)  # no lifespan
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_openapi_has_an_example_of_every_kind_of_request(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert len(document["components"]["schemas"]["RecommendRequest"]["examples"]) >= 4
    assert "/v1/recommend:batch" in document["paths"]
    for example in document["components"]["schemas"]["RecommendRequest"]["examples"]:
        if "departments" not in str(example):
            ask(client, **example)


def test_a_vector_of_a_text_is_made_once() -> None:
    live = live_day()
    encoder = live.engine.encoder
    assert isinstance(encoder, FakeEncoder)
    live.focus(["soda", "tea", ""])
    live.focus(["soda"])
    assert encoder.calls == 1


def test_a_prepared_list_that_filters_leave_short_goes_on_with_what_is_popular() -> None:
    """u0's list is i05, i04, i03; two neighbours read the same, and lower numbers are sold more."""
    with TestClient(create_app(holder(broken()), EASY, KeyRing()), base_url=LOCAL) as client:
        coffee = ask(client, user_id="u0", n=4, filters={"categories": ["coffee"]})
        assert (coffee["served_by"], items(coffee)) == ("u2i", ["i03", "i00", "i06", "i09"])
        assert [item["prefix"] for item in coffee["items"]] == [[1], None, None, None]
        other = ask(client, user_id="u0", n=4, filters={"exclude_items": ["i05"]})
        assert items(other) == ["i04", "i03", "i00", "i06"], "i02 reads like i03"
        assert items(ask(client, user_id="u0", n=3)) == ["i05", "i04", "i03"]


class NeverWalked(list[str]):
    """Users of whom there are too many to look at each."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all users were walked")


@pytest.mark.parametrize("starts_with", ["", "b", "ab", "abc", "abd", "a\U0010ffff", "z", "0"])
def test_users_are_found_by_their_first_letters_without_a_walk(starts_with: str) -> None:
    ids = sorted(["a", "ab", "abc", "abcd", "abd", "a\U0010ffff", "a\U0010ffffb", "b", "ba"])
    want = [user for user in ids if user.startswith(starts_with)]
    live = live_day()
    live.user_ids = NeverWalked(ids)
    assert live.users_like(starts_with, 2) == (len(want), want[:2])
