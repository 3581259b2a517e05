"""Connections that ask for nothing are let go; those that ask are answered."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from sigma_core.serving.http import connections


async def refused() -> JSONResponse:
    """An answer before the body is read, as the gate gives it to who has no key."""
    return JSONResponse({}, 401)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEADER_S", 0.3)
    app = FastAPI()
    app.get("/")(lambda: "ok")
    app.post("/")(refused)
    config = uvicorn.Config(
        app, port=0, log_level="error", http=connections.ImpatientProtocol, timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_who_never_ends_a_header_is_let_go(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(sent)
        assert caller.recv(1000) == b""


def test_a_header_without_end_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 60.0)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nX: ")
        sent = 0
        with suppress(OSError):
            while sent < 100_000_000:
                sent += caller.send(b"y" * 100_000)
    assert sent < 100_000_000


def test_a_connection_that_asks_in_time_is_kept(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        for _ in range(3):
            caller.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert caller.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(0.4)


def test_who_still_sends_a_large_body_reads_why_it_is_refused_and_may_ask_again(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 60.0)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        assert caller.recv(1000).startswith(b"HTTP/1.1 401")
        for _ in range(20):
            caller.sendall(b"x" * 10_000)
        caller.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert caller.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_refused_body_without_end_is_let_go(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        assert caller.recv(1000).startswith(b"HTTP/1.1 401")
        caller.sendall(b"x")
        assert caller.recv(1000) == b""
