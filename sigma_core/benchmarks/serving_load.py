"""Load on an HTTP server: many clients, their times, a steady rate with the server's memory, and requests that are no requests.

Speaks HTTP/1.1 over plain asyncio streams: a client library would be slower than the server. Talks to 127.0.0.1 only and starts
nothing. Our choice.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

HOST: Final = "127.0.0.1"
IDLE_S: Final = 2.0  # unused for longer, a connection is not used again: the server closes it after 5
ROUTES: Final = (
    "/v1/recommend",
    "/v1/recommend:batch",
    "/v1/events",
    "/v1/users/1/recommendations",
    "/v1/search",
    "/v1/items/1/similar",
)


class Call(NamedTuple):
    """One request; `body` None is a GET."""

    path: str
    body: bytes | None = None

    @classmethod
    def post(cls, path: str, value: Any) -> "Call":
        """A POST of a JSON value."""
        return cls(path, json.dumps(value).encode())


class Connection:
    """A kept-alive connection; opened anew when the server closed it, or may be about to because it was idle for `IDLE_S`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def send(self, call: Call) -> tuple[int, bytes]:
        """Status and body.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection broke before a whole answer was there.
        """
        if self._streams and (self._streams[0].at_eof() or time.monotonic() - self._used > IDLE_S):
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        try:
            method, body = ("GET", b"") if call.body is None else ("POST", call.body)
            head = f"{method} {call.path} HTTP/1.1\r\nhost: {HOST}:{self._port}\r\n"
            if call.body is not None:
                head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            writer.write(head.encode("utf-8", "replace") + b"\r\n" + body)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            answer = await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()
        if b"connection: close" in lines:
            self.close()
        return int(lines[0].split()[1]), answer

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Load:
    """What clients saw."""

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        """Requests, requests a second, milliseconds at quantiles, statuses and what served the lists."""
        quantiles = np.quantile(self.times, (0.5, 0.95, 0.99)) if self.times else [float("nan")] * 3
        names = ("p50_ms", "p95_ms", "p99_ms")
        return {
            "requests": len(self.times),
            "per_second": round(len(self.times) / max(self.seconds, 1e-9), 1),
            **{name: round(1000 * float(q), 2) for name, q in zip(names, quantiles, strict=True)},
            "statuses": dict(self.statuses),
            "served_by": dict(self.served),
        }


async def _take(connection: Connection, call: Call, load: Load) -> None:
    start = time.perf_counter()
    try:
        status, body = await connection.send(call)
    except (OSError, asyncio.IncompleteReadError):
        load.statuses["broken"] += 1
        return
    load.times.append(time.perf_counter() - start)
    load.statuses[str(status)] += 1
    at = body.find(b'"served_by":"', 0, 64)
    if at >= 0:
        load.served[body[at + 13 : body.index(b'"', at + 13)].decode()] += 1


async def clients(port: int, calls: Sequence[Call], concurrent: int) -> Load:
    """All calls, by `concurrent` clients that each send the next one when theirs is answered."""
    load, todo = Load(), iter(calls)

    async def one() -> None:
        connection = Connection(port)
        for call in todo:
            await _take(connection, call, load)
        connection.close()

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(concurrent)))
    load.seconds = time.perf_counter() - start
    return load


async def steady(
    port: int, make: Callable[[random.Random], Call], per_second: float, seconds: float, pid: int, seed: int
) -> tuple[Load, list[tuple[float, float]]]:
    """Calls at a steady rate, whether answered or not, for so long; and (seconds, MiB) of the server's memory meanwhile."""
    load, memory, rng = Load(), [], random.Random(seed)
    free: list[Connection] = []
    running: set[asyncio.Task[None]] = set()

    async def one(call: Call) -> None:
        connection = free.pop() if free else Connection(port)
        await _take(connection, call, load)
        free.append(connection)

    start, sent, measured = time.perf_counter(), 0, 0.0
    while (now := time.perf_counter() - start) < seconds:
        while sent < now * per_second:
            task = asyncio.create_task(one(make(rng)))
            running.add(task)
            task.add_done_callback(running.discard)
            sent += 1
        if now >= measured:
            memory.append((now, resident_mib(pid)))
            measured += max(seconds / 200, 0.5)
        await asyncio.sleep(0.005)
    await asyncio.gather(*running)
    load.seconds = time.perf_counter() - start
    for connection in free:
        connection.close()
    return load, memory


def resident_mib(pid: int) -> float:
    """Memory of a process in MiB; NaN where /proc does not tell."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float("nan")


def slope_per_hour(points: Sequence[tuple[float, float]], warm: float = 0.25) -> float | None:
    """Least-squares slope of (seconds, value) in value an hour, without the first `warm` share; None for too few points."""
    kept = [(t, v) for t, v in points[int(len(points) * warm) :] if v == v]
    if len(kept) < 3:
        return None
    times, values = np.array(kept).T
    return float(np.polyfit(times / 3600, values, 1)[0])


def malformed(rng: random.Random) -> Call:
    """A request that breaks some rule: JSON, types, bounds, names, bytes or sizes."""
    path = rng.choice(ROUTES)
    wrong: Any = rng.choice(
        [None, True, -1, 10**30, "", "x" * 5000, [], {}, [[]], {"": ""}, "\x00", "\ud800", "☃" * 400, 1e308]
    )
    key = rng.choice(
        ["user_id", "n", "filters", "steps", "history", "instruction", "task", "events", "requests"]
    )
    kind = rng.randrange(8)
    if kind == 0:
        return Call(path, rng.randbytes(rng.randrange(400)))
    if kind == 1:
        return Call(path, b"[" * rng.randrange(1, 3000))
    if kind == 2:
        return Call(path, json.dumps({key: wrong}).encode()[: rng.randrange(1, 40)])
    if kind == 3:
        return Call(f"{path}?n={rng.choice(['-1', 'x', '1e9', '%00', '9' * 400])}&q=&task=%ff")
    if kind == 4:
        return Call(path, b'{"n": NaN, "instruction": "\xff\xfe"}')
    if kind == 5:
        return Call.post(path, {key: {key: [wrong] * rng.randrange(60)}})
    if kind == 6:
        return Call("/" + "".join(rng.choice("abc/.%20:?&=") for _ in range(rng.randrange(200))))
    return Call.post(path, {key: wrong, rng.choice(["user_id", "zzz", "n"]): wrong})


async def send_malformed(port: int, count: int, seed: int, concurrent: int = 8) -> Load:
    """`count` malformed requests."""
    rng = random.Random(seed)
    return await clients(port, [malformed(rng) for _ in range(count)], concurrent)
