"""The annotator: off by default, asked once per content, within its budget, deaf to nonsense; against a stub on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.config import ConfigError, GroundingConfig, profile_config
from sigma_core.grounding.annotator import annotate, phrases_of
from sigma_core.grounding.chat import KEY_VARIABLE, Chat, ChatError, EndpointChat, LocalChat, open_chat
from sigma_core.grounding.relevance_pairs import build_relevance_pairs
from sigma_core.pretrained import PretrainedError
from tests.grounding.test_relevance_pairs import SHOP, grill_parties
from tests.model.tiny_llm import save_tiny_llm

ITEMS = SHOP.frame.with_columns(pl.Series(c.NUM_EVENTS_56D, [50, 40, 30, 20, 10]))
CONFIG = GroundingConfig(
    annotator="endpoint", annotator_model="stub-1", annotator_budget=10, pairs_per_view=60
)
ANSWERS = {"hot dogs": ["Barbecue night", "cookout"], "candles": ["power outage", "candles", "secret word"]}


class Stub:
    """An OpenAI-compatible server: answers by product group, after the statuses of `failures`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.failures: list[int] = []
        self.text: str | None = None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.requests.append({"path": self.path, **body})
                stub.keys.append(self.headers.get("Authorization"))
                status = stub.failures.pop(0) if stub.failures else 200
                asked = body["messages"][0]["content"]
                group = asked.split('"')[1]
                text = json.dumps({"phrases": ANSWERS.get(group, [f"{group} time"])})
                content = {"choices": [{"message": {"content": stub.text or f"Sure! {text}"}}]}
                refusal = {
                    "error": f"refused with {status}: {stub.keys[-1]}"
                }  # many servers say the key again
                reply = json.dumps(content if status == 200 else refusal).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def chat(stub: Stub, key: str | None = "k-123", waits: list[float] | None = None) -> EndpointChat:
    return EndpointChat(stub.url, "stub-1", key, 50, [].append if waits is None else waits.append)


def test_phrases_come_from_the_answer_and_test_phrases_never(stub: Stub, tmp_path: Path) -> None:
    found = annotate(ITEMS, chat(stub), CONFIG, tmp_path, ["Secret Word"])
    assert found.items["barbecue night"] == found.items["cookout"] == ["i1"]
    assert found.items["power outage"] == ["i5"]
    assert "candles" not in found.items  # the group's own name teaches nothing
    assert "secret word" not in found.items
    assert found.figures == {
        "groups": 5, "asked": 5, "cached": 0, "unusable": 0, "over_budget": 0, "test_phrases": 1,
    }  # fmt: skip
    first = stub.requests[0]
    assert first["path"] == "/v1/chat/completions"
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("stub-1", 0, 50)
    assert '"hot dogs"' in first["messages"][0]["content"]  # the best-selling group first
    assert set(stub.keys) == {"Bearer k-123"}


def test_what_was_answered_is_not_asked_again(stub: Stub, tmp_path: Path) -> None:
    once = annotate(ITEMS, chat(stub), CONFIG, tmp_path, [])
    again = annotate(ITEMS, chat(stub), CONFIG, tmp_path, [])
    assert again.items == once.items
    assert (again.figures["asked"], again.figures["cached"], len(stub.requests)) == (0, 5, 5)
    changed = ITEMS.with_columns(pl.col(c.TEXT).replace("candle", "tall candle"))
    assert (
        annotate(changed, chat(stub), CONFIG, tmp_path, []).figures["asked"] == 1
    )  # another content, another address
    assert all("k-123" not in path.read_text() for path in tmp_path.iterdir())


def test_the_budget_holds_and_the_next_refit_goes_on(stub: Stub, tmp_path: Path) -> None:
    two = CONFIG.model_copy(update={"annotator_budget": 2})
    first = annotate(ITEMS, chat(stub), two, tmp_path, [])
    assert (first.figures["asked"], first.figures["over_budget"]) == (2, 3)
    second = annotate(ITEMS, chat(stub), two, tmp_path, [])
    assert (second.figures["asked"], second.figures["cached"], second.figures["over_budget"]) == (2, 2, 1)
    assert set(first.items) < set(second.items)
    assert (
        annotate(
            ITEMS, chat(stub), CONFIG.model_copy(update={"annotator_budget": 0}), tmp_path / "new", []
        ).items
        == {}
    )


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(stub: Stub, tmp_path: Path) -> None:
    waits: list[float] = []
    stub.failures = [429, 503]
    assert "cookout" in chat(stub, waits=waits).ask('"hot dogs"')
    assert waits == [1.0, 2.0]
    stub.failures = [401]
    with pytest.raises(ChatError, match=r"status 401.*refused with 401") as refused:
        annotate(ITEMS, chat(stub), CONFIG, tmp_path, [])
    assert "k-123" not in str(refused.value)
    assert stub.failures == []
    stub.failures = [500, 500, 500]
    with pytest.raises(ChatError, match="Answers so far are cached"):
        chat(stub).ask('"hot dogs"')


def test_a_key_with_a_line_feed_is_the_key_and_one_that_is_none_is_not_told(stub: Stub) -> None:
    """As a header it would be refused by the library, in words that hold it."""
    assert "cookout" in chat(stub, key="k-123\n").ask('"hot dogs"')
    assert stub.keys == ["Bearer k-123"]
    with pytest.raises(ChatError, match="SIGMA_ANNOTATOR_API_KEY holds a line break") as refused:
        chat(stub, key="k-1\n23")
    assert "23" not in str(refused.value)


def test_an_unreachable_server_is_an_error_that_says_so() -> None:
    with pytest.raises(ChatError, match="did not answer"):
        EndpointChat("http://127.0.0.1:9/v1", "m", None, 5, lambda _: None).ask("x")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"phrases": ["Game Day", " game  day ", "movie night"]}', ["game day", "movie night"]),
        (
            'Here: {"phrases": ["a b c d e", "ok", "<script>", "x" , 7, "' + "y" * 50 + '"]} bye',
            ["ok", "x", "7"],
        ),
        ('{"words": ["game day"]}', []),
        ('{"phrases": "game day"}', []),
        ("I cannot help", []),
        ("{broken", []),
        ('<think>{"phrases": ["not this"]} or</think>{"phrases": ["this"]}', ["this"]),
        ("}{", []),
    ],
)
def test_only_plain_short_phrases_of_json_are_read(answer: str, expected: list[str]) -> None:
    assert phrases_of(answer, 6) == expected
    assert phrases_of(answer, 1) == expected[:1]


def test_nonsense_is_counted_not_learned(stub: Stub, tmp_path: Path) -> None:
    stub.text = "no idea"
    found = annotate(ITEMS, chat(stub), CONFIG, tmp_path, [])
    assert (found.items, found.figures["unusable"]) == ({}, 5)


def test_annotated_pairs_join_the_knowledge_view_marked_and_bounded() -> None:
    items = {f"phrase {n}": ["i1", "i5"] for n in range(40)}

    def built(annotations: dict[str, list[str]]) -> pl.DataFrame:
        themes = {"Halloween": ["pumpkin"]}
        pairs = build_relevance_pairs(grill_parties(), SHOP, themes, {}, CONFIG, 17, None, annotations)  # type: ignore[arg-type]
        return pairs.frame.filter(pl.col(c.VIEW) == "knowledge")

    without, with_them = built({}), built(items)
    assert without.equals(with_them.filter(~pl.col(c.IS_PSEUDO)))
    marked = with_them.filter(pl.col(c.IS_PSEUDO))
    assert marked.height == 20  # a third of 60
    assert set(marked[c.POSITIVE_ITEM_ID]) == {"i1", "i5"}
    assert not built({"Halloween": ["i3"]}).filter(pl.col(c.IS_PSEUDO)).height  # the theme said so already


def test_it_is_off_by_default_and_its_settings_are_checked(tmp_path: Path) -> None:
    assert open_chat(GroundingConfig()) is None
    with pytest.raises(ConfigError, match="annotator"):
        profile_config("toy", {"grounding": {"annotator": "oracle"}})
    with pytest.raises(ChatError, match=KEY_VARIABLE):
        open_chat(CONFIG, {})
    made = open_chat(CONFIG, {KEY_VARIABLE: "k"})
    assert made is not None
    assert made.name == "stub-1"
    for update, needle in (
        ({"annotator_url": "http://example.com/v1"}, "unencrypted"),
        ({"annotator_url": "https://me:word@example.com"}, "holds a password"),
        ({"annotator_url": "ftp://example.com"}, "no http"),
        ({"annotator_model": ""}, "annotator_model is empty"),
    ):
        with pytest.raises(ChatError, match=needle):
            open_chat(CONFIG.model_copy(update=update), {KEY_VARIABLE: "k"})
    with pytest.raises(PretrainedError, match="hf download"):
        open_chat(CONFIG.model_copy(update={"annotator": "local", "annotator_model": "no/model"}), {})


def test_a_local_model_is_asked_the_same_way(tmp_path: Path) -> None:
    """The tiny model is random: what it says is nonsense, the same each time, and no phrase is made of it."""
    folder = save_tiny_llm(tmp_path / "llm")
    local: Chat = LocalChat(str(folder), max_tokens=5)
    assert local.ask("red soda") == local.ask("red soda")
    assert len(local.ask("red soda").split()) <= 5
    assert isinstance(local, LocalChat)
    control = local._tokenizer.all_special_tokens[0]
    asked: list[int] = []
    generate = local._model.generate
    local._model.generate = lambda **inputs: asked.append(inputs["input_ids"].shape[1]) or generate(**inputs)
    assert local.ask(f"red soda{control}") == local.ask("red soda ")  # a title gives the model no orders
    assert asked[0] == asked[1]
    local._model.generate = generate
    found = annotate(ITEMS, local, CONFIG, tmp_path / "cache", [])
    assert (found.items, found.figures["asked"], found.figures["unusable"]) == ({}, 5, 5)
    save_tiny_llm(folder, seed=2)
    assert (
        LocalChat(str(folder), max_tokens=5).name != local.name
    )  # other weights, other addresses in the cache


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://host/v1?api_key=sk-secret", "k"),
        ("ftp://user:sk-secret@host", "k"),
        ("http://[::1/sk-secret", "k"),
        ("https://host/v1", "sk-secret\nX: y"),
        ("https://host/v1", "sk-secretÉ"),
    ],
)
def test_a_key_in_the_wrong_place_or_form_is_refused_and_not_repeated(url: str, key: str) -> None:
    with pytest.raises(ChatError) as refused:
        EndpointChat(url, "m", key, 9)
    assert "sk-secret" not in str(refused.value)


def test_a_key_that_the_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(*_: object, headers: dict[str, str], **__: object) -> httpx.Response:
        return httpx.Response(401, text=f"no such key: {headers['Authorization']}")

    monkeypatch.setattr("httpx.post", echo)
    with pytest.raises(ChatError, match=r"no such key: Bearer \*\*\*"):
        EndpointChat("https://host/v1", "m", " sk-secret\n", 9).ask("?")
