"""Memory goes back to the machine: few heaps, a trim now and then, and one thread that keeps lists current."""

import asyncio
import platform
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sigma_core.config import HttpConfig
from sigma_core.serving.http import heap
from sigma_core.serving.http.metrics import Metrics
from sigma_core.serving.http.service import Service

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")


def test_free_memory_is_given_back_at_most_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[int] = []

    def malloc_trim(kept: int) -> int:
        trimmed.append(kept)
        return 1

    library = SimpleNamespace(malloc_trim=malloc_trim)
    clock = iter((0.0, 19.0, 21.0, 22.0, 42.0))
    monkeypatch.setattr(heap, "_libc", lambda: library)
    monkeypatch.setattr(heap, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    trim = heap.Trimmer(20.0)
    assert [trim() for _ in range(4)] == [False, True, False, True]
    assert trimmed == [0, 0]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_libc", lambda: None)
    assert not heap.use_few_heaps()
    assert not heap.Trimmer(0.0)()


@glibc
def test_glibc_takes_the_setting() -> None:
    assert heap.use_few_heaps()


def test_one_thread_keeps_lists_current() -> None:
    """Round after round: a thread of its own for each would keep a heap and a connection to the store of its own."""
    seen: list[int] = []

    def catch_up() -> int:
        seen.append(threading.get_ident())
        return 0

    async def rounds() -> None:
        holder: Any = SimpleNamespace(catch_up=catch_up)
        service = Service(holder, HttpConfig(), Metrics())
        task = asyncio.create_task(service.keep_current(0.001))
        while len(seen) < 5:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(rounds())
    assert len(set(seen)) == 1
    assert threading.get_ident() not in seen
