"""Alerts against a real HTTP and a real SMTP server on loopback that fail, hang and recover."""

import json
import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from hypothesis import given
from hypothesis import strategies as st

from sigma_assets.alert_sinks import (
    AlertConfigError,
    EmailSink,
    LogSink,
    WebhookSink,
    sinks_of,
    slack_payload,
)
from sigma_assets.alerts import ATTEMPTS, GIVE_UP_DAYS, LOG, Alert, AlertLog, DeliveryError
from sigma_core.artifacts import write_bytes

ALERT = Alert(
    kind="check_failed",
    what="item_catalog: 3 of 80 rows break it",
    severity="ERROR",
    asset="item_catalog",
    partition="2024-10-28",
    check="contract",
    run_id="r1",
    link="http://127.0.0.1:3000/runs/r1",
    examples=('{"item_id": "item003"}',),
    to_do="correct the source",
    owner="team:catalog",
)


BAD = "no_payload_for_it"


def no_sleep(_: float) -> None:
    pass


class Web:
    """A webhook that can be told how to behave: "ok", "broken" (500), "refuse" (403), "hang", "babble" (no HTTP), or
    "picky" (400 for what has to do with `BAD`)."""

    def __init__(self) -> None:
        self.mode, self.got, self.asked = "ok", [], 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.mode == "hang":
                    time.sleep(1.0)
                    return
                if outer.mode == "babble":
                    self.wfile.write(b"hello to you\r\n\r\n")
                    return
                picky = 400 if BAD in json.dumps(body) else 200
                code = {"ok": 200, "broken": 500, "refuse": 403, "picky": picky}[outer.mode]
                if code == 200:
                    outer.got.append(body)
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def sink(self) -> WebhookSink:
        return WebhookSink(f"http://127.0.0.1:{self.server.server_port}/hook", timeout=0.3)


@pytest.fixture
def web() -> Iterator[Web]:
    one = Web()
    yield one
    one.server.shutdown()
    one.server.server_close()


class Mailbox:
    """What an SMTP server was given; it refuses for a while when told so."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.is_broken = False

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.is_broken:
            return "451 try again later"
        self.got.append(envelope)
        return "250 OK"


@contextmanager
def mail_server(box: Mailbox) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def mail_sink(port: int) -> EmailSink:
    return EmailSink("127.0.0.1", port, "sigma@example.org", ("ops@example.org",), timeout=0.5)


# -------------------------------------------------------------------------------------------- the log
def test_a_log_that_is_half_of_no_use_is_written_anew_by_the_next_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sigma_assets.alerts.COMPACT_LINES", 10)
    log, long_ago = AlertLog(tmp_path), (datetime.now(UTC) - timedelta(days=GIVE_UP_DAYS + 1)).isoformat()
    over, still, recent = (
        replace(ALERT, id=name, asset=name, at=at)
        for name, at in (("over", long_ago), ("still", long_ago), ("recent", ALERT.at))
    )
    for alert in (over, still, recent):
        log.raise_alert(alert)
    log.resolve([over.key, recent.key])
    for _ in range(6):
        log.raise_alert(still)
    assert len(log.path.read_text().splitlines()) == 11
    log.raise_alert(ALERT)
    assert [alert.id for alert in log.alerts()] == ["still", "recent", ALERT.id]
    assert len(log.path.read_text().splitlines()) == 4, "three were raised, one of them is over"
    assert log.open_keys() == [still.key, ALERT.key]


def test_a_writer_that_waited_for_its_turn_writes_into_the_new_log(tmp_path: Path) -> None:
    log = AlertLog(tmp_path)
    log.raise_alert(ALERT)
    with log._appending():
        waiting = threading.Thread(target=AlertLog(tmp_path).resolve, args=([ALERT.key],))
        waiting.start()
        while f":{log.path.stat().st_ino} " not in _waiting_for_locks():
            time.sleep(0.01)
        write_bytes(log.path, log.path.read_bytes())
    waiting.join()
    assert log.open_keys() == []


def _waiting_for_locks() -> str:
    return "".join(line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "->" in line)


# ---------------------------------------------------------------------------------------- the webhook
def test_a_webhook_gets_one_slack_message_that_says_everything(tmp_path: Path, web: Web) -> None:
    log = AlertLog(tmp_path)
    assert log.raise_alert(ALERT)
    assert log.deliver([web.sink], no_sleep) == 0
    assert log.deliver([web.sink], no_sleep) == 0
    (message,) = web.got
    assert message["text"] == "ERROR item_catalog[2024-10-28] contract"
    said = message["blocks"][1]["text"]["text"]
    for part in (ALERT.what, "item003", "correct the source", "team:catalog", "/runs/r1"):
        assert part in said


@pytest.mark.parametrize("mode", ["broken", "hang", "babble"])
def test_a_webhook_that_fails_is_retried_and_gets_it_when_it_recovers(
    tmp_path: Path, web: Web, mode: str
) -> None:
    log, waits = AlertLog(tmp_path), []
    log.raise_alert(ALERT)
    web.mode = mode
    assert log.deliver([web.sink], waits.append) == 1
    assert web.asked == ATTEMPTS
    assert waits == [0.5, 1.0]
    events = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [event["event"] for event in events] == ["raised", "undelivered"]
    web.mode = "ok"
    assert AlertLog(tmp_path).deliver([web.sink], no_sleep) == 0  # another process, later
    assert len(web.got) == 1


def test_a_refusal_is_not_repeated_at_once(tmp_path: Path, web: Web) -> None:
    log = AlertLog(tmp_path)
    log.raise_alert(ALERT)
    web.mode = "refuse"
    assert log.deliver([web.sink], no_sleep) == 1
    assert web.asked == 1
    web.mode = "ok"  # 403 was about the address, which somebody has corrected
    assert log.deliver([web.sink], no_sleep) == 0
    assert len(web.got) == 1


def test_an_alert_that_is_refused_for_good_holds_up_no_other(
    tmp_path: Path, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    log = AlertLog(tmp_path)
    for asset in (BAD, "users", "events"):
        log.raise_alert(replace(ALERT, id=asset, asset=asset))
    web.mode = "picky"
    assert log.deliver([web.sink], no_sleep) == 0
    assert [message["text"].split("[")[0] for message in web.got] == ["ERROR users", "ERROR events"]
    events = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [(e["event"], e["id"]) for e in events[3:]] == [
        ("refused", BAD),
        ("delivered", "users"),
        ("delivered", "events"),
    ]
    assert events[3]["error"] == "the webhook answered 400"
    assert "webhook refuses alert" in caplog.text
    assert log.deliver([web.sink], no_sleep) == 0
    assert web.asked == 3, "not asked again"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a secret", "http://[secret/hook", f"http://{'secret' * 12}.org/hook"]
)
def test_an_address_that_cannot_be_asked_is_told_without_the_secret_in_it(tmp_path: Path, url: str) -> None:
    log = AlertLog(tmp_path)
    log.raise_alert(ALERT)
    assert log.deliver([WebhookSink(url)], no_sleep) == 1
    told = (tmp_path / LOG).read_text().splitlines()[1]
    assert '"undelivered"' in told
    assert "secret" not in told


@contextmanager
def answering(*parts: bytes) -> Iterator[int]:
    """A server that sends these parts to whoever connects, a tenth of a second apart."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller:
                        caller.recv(65_536)
                        for part in parts:
                            caller.sendall(part)
                            time.sleep(0.1)

        threading.Thread(target=talk, daemon=True).start()
        yield server.getsockname()[1]


def test_a_redirection_is_no_receipt(tmp_path: Path) -> None:
    """Followed, it would be a GET without the alert; and the page it leads to says 200."""
    log = AlertLog(tmp_path)
    log.raise_alert(ALERT)
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with (
        answering(page) as there,
        answering(f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{there}/\r\n\r\n".encode()) as port,
    ):
        assert log.deliver([WebhookSink(f"http://127.0.0.1:{port}/")], no_sleep) == 1
    assert "it has moved: give SIGMA_ALERT_WEBHOOK_URL its new address" in log.path.read_text()


def test_a_server_that_never_ends_its_answer_costs_the_timeout() -> None:
    """Every byte begins a socket's timeout anew."""
    with answering(b"HTTP/1.1 200 OK\r\nX-Endless: ", *[b"x"] * 50) as port:
        sink = WebhookSink(f"http://127.0.0.1:{port}/", timeout=0.3)
        with pytest.raises(DeliveryError, match="no answer within"):
            sink.send(ALERT)


def test_a_sink_with_a_bug_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Bug:
        name = "bug"

        def send(self, _: Alert) -> None:
            raise TypeError("not so")

    log = AlertLog(tmp_path)
    log.raise_alert(ALERT)
    assert log.deliver([Bug()], no_sleep) == 0
    assert "sink bug broke" in caplog.text
    assert '"the sink broke: TypeError"' in (tmp_path / LOG).read_text()


def test_a_dead_sink_does_not_keep_the_alert_from_another_one(tmp_path: Path, web: Web) -> None:
    log = AlertLog(tmp_path)
    log.raise_alert(ALERT)
    nobody = mail_sink(1)
    assert log.deliver([nobody, web.sink], no_sleep) == 1
    assert len(web.got) == 1
    assert [alert.id for alert in log.waiting("email")] == [ALERT.id]
    assert log.waiting("webhook") == []


# ------------------------------------------------------------------------------------------- e-mail
def test_mail_waits_for_a_server_that_is_down_then_broken_then_well(tmp_path: Path) -> None:
    log, box = AlertLog(tmp_path), Mailbox()
    log.raise_alert(ALERT)
    with mail_server(box) as port:
        pass
    assert log.deliver([mail_sink(port)], no_sleep) == 1
    with mail_server(box) as port:
        box.is_broken = True
        assert log.deliver([mail_sink(port)], no_sleep) == 1
        box.is_broken = False
        assert log.deliver([mail_sink(port)], no_sleep) == 0
    (mail,) = box.got
    text = mail.content.decode()
    assert mail.rcpt_tos == ["ops@example.org"]
    assert "Subject: [sigma] ERROR item_catalog[2024-10-28] contract" in text
    assert "to do: correct the source" in text


@pytest.mark.parametrize(
    "wrong", [{"host": f"{'long' * 20}.org"}, {"sender": "sigma@example.org\nBcc: x@example.org"}]
)
def test_what_no_mail_can_be_sent_with_is_a_matter_of_setup(wrong: dict[str, str]) -> None:
    with pytest.raises(DeliveryError, match="cannot be right") as failed:
        replace(mail_sink(1), **wrong).send(ALERT)
    assert failed.value.is_setup


def test_a_mail_whose_content_is_refused_is_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise smtplib.SMTPDataError(554, b"not this one")

    with mail_server(Mailbox()) as port:
        mail_sink(port).send(replace(ALERT, what="a lone surrogate \udc80"))
        monkeypatch.setattr(smtplib.SMTP, "send_message", refuse)
        with pytest.raises(DeliveryError, match="not this one") as failed:
            mail_sink(port).send(ALERT)
    assert failed.value.is_final


def test_a_mail_server_that_hangs_costs_its_timeout(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # accepts and says nothing
        pytest.raises(DeliveryError, match=r"no answer|timed out"),
    ):
        mail_sink(silent.getsockname()[1]).send(ALERT)


def test_a_line_break_in_a_name_starts_no_header() -> None:
    box = Mailbox()
    with mail_server(box) as port:
        mail_sink(port).send(replace(ALERT, partition="x\nBcc: evil@example.org"))
    assert box.got[0].rcpt_tos == ["ops@example.org"]
    assert b"\nBcc:" not in box.got[0].content.split(b"\r\n\r\n")[0]


# ------------------------------------------------------------------------------------------ the log
def test_the_same_thing_is_told_once_until_it_is_over(tmp_path: Path, web: Web) -> None:
    log = AlertLog(tmp_path)
    assert log.raise_alert(ALERT)
    assert not log.raise_alert(replace(ALERT, id="second"))
    assert log.raise_alert(replace(ALERT, id="third", partition="2024-10-29"))
    assert log.open_keys() == [ALERT.key, "contract/item_catalog/2024-10-29"]
    assert log.resolve([ALERT.key, "never/raised/x"]) == 1
    assert log.raise_alert(replace(ALERT, id="fourth"))
    log.deliver([web.sink], no_sleep)
    assert len(web.got) == 3


def test_a_half_written_line_costs_nothing_but_itself(tmp_path: Path) -> None:
    log = AlertLog(tmp_path)
    log.raise_alert(ALERT)
    with (tmp_path / LOG).open("a") as handle:
        handle.write('null\n[]\n3\n{"event": "delivered", "id"')
    log.raise_alert(replace(ALERT, id="next", asset="item_index"))
    assert [alert.id for alert in log.alerts()] == [ALERT.id, "next"]


def test_what_is_old_is_not_sent_any_more(tmp_path: Path) -> None:
    log = AlertLog(tmp_path)
    then = (datetime.now(UTC) - timedelta(days=GIVE_UP_DAYS + 1)).isoformat(timespec="seconds")
    log.raise_alert(replace(ALERT, at=then))
    assert log.waiting("log") == []
    assert len(log.alerts()) == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=12))
def test_an_alert_is_new_exactly_when_nothing_of_its_key_is_open(steps: list[tuple[str, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log, is_open = AlertLog(Path(folder)), set()
        for number, (asset, is_failure) in enumerate(steps):
            alert = replace(ALERT, id=str(number), asset=asset)
            if is_failure:
                assert log.raise_alert(alert) == (asset not in is_open)
                is_open.add(asset)
            else:
                assert log.resolve([alert.key]) == (asset in is_open)
                is_open.discard(asset)


# -------------------------------------------------------------------------------------- environment
def test_the_environment_chooses_the_sinks() -> None:
    assert sinks_of({}) == [LogSink()]
    given = {
        "SIGMA_ALERT_SINKS": "log, webhook,email",
        "SIGMA_ALERT_WEBHOOK_URL": "https://hooks.example.org/x",
        "SIGMA_ALERT_SMTP_HOST": "mail.example.org",
        "SIGMA_ALERT_FROM": "a@example.org",
        "SIGMA_ALERT_TO": "b@example.org, c@example.org",
    }
    log, web, mail = sinks_of(given)
    assert (log.name, web.name, mail.name) == ("log", "webhook", "email")
    assert isinstance(mail, EmailSink)
    assert mail.to == ("b@example.org", "c@example.org")
    assert "hooks.example.org" not in repr(web), "the address is a secret"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"SIGMA_ALERT_SINKS": "pager"}, "pager"),
        ({"SIGMA_ALERT_SINKS": "webhook"}, "SIGMA_ALERT_WEBHOOK_URL"),
        ({"SIGMA_ALERT_SINKS": "webhook", "SIGMA_ALERT_WEBHOOK_URL": "file:///etc/passwd"}, "https://"),
        ({"SIGMA_ALERT_SINKS": "email", "SIGMA_ALERT_SMTP_HOST": "h"}, "SIGMA_ALERT_TO"),
    ],
)
def test_a_wrong_environment_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(AlertConfigError, match=said):
        sinks_of(given)


def test_slack_gets_no_more_than_it_takes() -> None:
    payload = slack_payload(replace(ALERT, what="x" * 5000, partition="y" * 500))
    assert len(payload["blocks"][0]["text"]["text"]) <= 150
    assert len(payload["blocks"][1]["text"]["text"]) <= 3000


def test_the_log_sink_logs(caplog: pytest.LogCaptureFixture) -> None:
    LogSink().send(ALERT)
    assert "ERROR item_catalog[2024-10-28] contract" in caplog.text
