"""The gate every request passes: its id, host, key, rate, body size; and what is logged and counted of it.

One ASGI middleware, so that no route can forget a rule. Logs hold route patterns, codes and times, never a path, a body, an
exception's text or anything else a user sent. Our choice.
"""

import asyncio
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from sigma_core.config import HttpConfig
from sigma_core.serving.http.metrics import Metrics
from sigma_core.serving.http.security import KeyRing, RateLimit, is_loopback

LOG: Final = logging.getLogger("sigma.serve")
OPEN_PATHS: Final = ("/", "/healthz", "/readyz", "/favicon.ico")  # hold no data
OPEN_FOLDERS: Final = ("/playground/",)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Refused(Exception):  # noqa: N818 an outcome, not a fault
    """The gate says no, with this answer."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def problem(code: str, message: str, request_id: str) -> dict[str, str]:
    """The body of every error."""
    return {"code": code, "message": message, "request_id": request_id}


class Gate:
    """ASGI middleware around the whole app.

    Args:
        app: what is behind it.
        config: limits.
        keys: accepted keys; an empty ring lets loopback callers in without one.
        metrics: what is counted.
    """

    def __init__(self, app: App, config: HttpConfig, keys: KeyRing, metrics: Metrics) -> None:
        self.app, self.config, self.keys, self.metrics = app, config, keys, metrics
        self.rate = RateLimit(config.rate_per_minute, config.rate_burst)
        self._inside = 0  # requests being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.monotonic()
        given = _header(scope, b"x-request-id")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500
        begun = False

        async def sending(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                own = [h for h in _HEADERS if h[0] not in {name for name, _ in message.get("headers", [])}]
                identity = (b"x-request-id", request_id.encode())
                message = {**message, "headers": [*message.get("headers", []), identity, *own]}
            await send(message)

        self._inside += 1
        try:
            self._admit(scope)
            await self.app(scope, await self._body(scope, receive), sending)
        except Refused as no:
            headers = {name.replace("_", "-"): value for name, value in no.headers.items()}
            await _respond(sending, no.status, problem(no.code, no.message, request_id), headers)
        except Exception as error:  # noqa: BLE001 the last line of defence: a client never sees a stack trace
            where = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("request %s failed: %s\n%s", request_id, type(error).__name__, where)
            if not begun:
                message = "something went wrong; the server's log knows this request id"
                await _respond(sending, 500, problem("internal", message, request_id), {})
        finally:
            self._inside -= 1
            self._account(scope, status, time.monotonic() - start, request_id)

    def _admit(self, scope: Scope) -> None:
        """Host, load, key, rate."""
        path = scope["path"]
        if not self.keys and not is_loopback(_hostname(_header(scope, b"host"))):
            # without keys only this machine may ask; another host name means a page that rebinds DNS
            raise Refused(400, "host", "this server answers to localhost only")
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS) or scope["method"] == "OPTIONS":
            return
        if self._inside > self.config.max_in_flight:
            raise Refused(
                429, "busy", "too many requests are being answered; try again in 1 s", Retry_After="1"
            )
        client = scope.get("client")
        caller = f"client {client[0] if client else ''}"
        name = self.keys.check(_presented(scope)) if self.keys else "local"
        wait = self.rate.take(name or caller)
        if wait:
            seconds = str(int(wait) + 1)
            raise Refused(429, "rate", f"too many requests; try again in {seconds} s", Retry_After=seconds)
        if name is None:
            raise Refused(
                401,
                "key",
                "send a valid key in X-API-Key or Authorization: Bearer",
                WWW_Authenticate="Bearer",
            )

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        """The whole body, read within its limits, to be received again by the app."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        most = self.config.max_body_bytes
        too_large = Refused(413, "size", f"a body may hold {most} bytes", Connection="close")
        length = _header(scope, b"content-length")
        if length.isdecimal() and int(length) > most:
            raise too_large
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.config.body_timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    more = message.get("more_body", False)
                    if size > most:
                        raise too_large
        except TimeoutError as error:
            raise Refused(408, "slow", "the body came too slowly", Connection="close") from error
        whole: list[Message] = [{"type": "http.request", "body": b"".join(chunks), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        return again

    def _account(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path_format", "other")
        method = scope["method"] if scope["method"] in ("GET", "POST", "OPTIONS", "HEAD") else "other"
        self.metrics.requests.labels(route, method, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        LOG.info("%s %s %d %.1f ms id=%s", method, route, status, seconds * 1000, request_id)


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def _presented(scope: Scope) -> str:
    bearer = _header(scope, b"authorization")
    if bearer[:7].lower() == "bearer ":
        return bearer[7:].strip()
    return _header(scope, b"x-api-key")


def _hostname(host: str) -> str:
    """The name of a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _respond(send: Send, status: int, body: dict[str, str], headers: dict[str, str]) -> None:
    extra = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    content = json.dumps(body).encode()
    kind = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *extra]})
    await send({"type": "http.response.body", "body": content})
