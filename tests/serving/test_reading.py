"""What a request's words are taken for, with the route given: when it is followed, and what it changes."""

import pytest

from sigma_core.instruction.routing import Route
from sigma_core.serving.item_filter import FilterTable, ItemFilter
from sigma_core.serving.reading import Asked, ReadRequest, RequestReader, told_route
from tests.serving.live_world import DAY, ITEMS, FakeEncoder, catalog, lists

WORDS = {"season": "autumn", "ramping": ["candy"], "holiday": "Halloween", "rising": ["coffee"],
         "offers": {"offer 1": ["candy"]}, "sent": {"u0": ["offer 1"]}}  # fmt: skip


def reader(words: dict = WORDS) -> RequestReader:
    table = FilterTable(ITEMS, catalog().frame, lists().prices)
    return RequestReader(DAY, "US", catalog(), words, table, FakeEncoder().encode)


def read(text: str, task: str, confidence: float = 0.9, user: str = "u9") -> ReadRequest:
    made = reader()
    made.route = lambda _: Route(task, confidence)  # type: ignore[method-assign]
    return made.read(Asked(instruction=text, user_id=user), ItemFilter(), 0.6)


@pytest.mark.parametrize(
    ("text", "nearest", "task", "focus"),
    [
        ("surprise me", "discover", "discover", ""),
        ("surprise me with coffee", "discover", "discover", "coffee"),
        ("rare finds", "longtail", "longtail", ""),
        ("what is hot", "trending", "trending", "trending: coffee"),
        ("seasonal things", "season", "season", "autumn: candy"),
        ("what is in season in autumn", "season", "season", "autumn: candy"),
        ("Christmas is coming", "holiday", "holiday", "Christmas Day"),
        ("ready for the holidays", "holiday", "holiday", "Halloween"),
        ("show me soft drinks", "query", "category", "soft drinks"),
        ("something for taco night", "query", "query", "taco night"),
        ("blue flowers", "query", "query", "blue flowers"),
        ("my next shop", "just_for_you", "just_for_you", "my next shop"),
        ("the promotion on candy", "campaign", "campaign", "offer-candy: candy"),
    ],
)
def test_a_sure_route_is_followed(text: str, nearest: str, task: str, focus: str) -> None:
    got = read(text, nearest)
    assert (got.task, got.followed) == (task, True)
    assert got.request.focus.lower().startswith(focus.lower())
    assert got.request.instruction == text, "the words reach the model as they are"
    assert told_route(got) == f"{task}, 90 % sure"


@pytest.mark.parametrize("nearest", ["discover", "season", "query", "holiday", "campaign"])
def test_an_unsure_route_is_told_and_the_words_stay(nearest: str) -> None:
    got, plain = (
        read("something for taco night", nearest, 0.59),
        read("something for taco night", "just_for_you"),
    )
    assert (got.task, got.followed, got.request) == ("just_for_you", False, plain.request)
    assert got.route == Route(nearest, 0.59)
    assert "nearest" in told_route(got)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("dinner for two", "holiday"),  # no holiday is named
        ("it is getting warm, summer is here", "season"),  # of October
        ("redeem my vouchers", "campaign"),  # nothing was sent to them
    ],
)
def test_a_route_that_the_day_cannot_carry_is_not_followed(text: str, nearest: str) -> None:
    got = read(text, nearest)
    assert (got.task, got.followed, got.request.instruction) == ("just_for_you", False, text)


def test_an_offer_that_was_sent_is_what_coupons_are_about() -> None:
    got = read("redeem my vouchers", "campaign", user="u0")
    assert got.task == "campaign"
    assert "candy" in got.request.focus


def test_a_named_task_is_never_routed() -> None:
    made = reader()
    made.route = lambda _: pytest.fail("routed")  # type: ignore[method-assign]
    for asked in (Asked("discover", instruction="x"), Asked(query="soda"), Asked(category="candy"), Asked()):
        assert made.read(asked, ItemFilter(), 0.6).route is None


def test_what_is_named_does_not_decide_the_route() -> None:
    """The name is replaced before the text is encoded, but for names that tell a task themselves."""
    made, seen = reader(), []
    made._encode = lambda texts: seen.extend(texts) or FakeEncoder().encode(texts)  # type: ignore[assignment]
    made.route("I want Soft  drinks, now")
    made.route("Christmas shopping")
    assert {"I want coffee, now", "Halloween shopping"} <= set(seen)
