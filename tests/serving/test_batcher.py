import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from sigma_core.serving.http.batcher import DeadlineError, MicroBatcher, QueueFullError

Batcher = MicroBatcher[int, int]


def run(batcher: Callable[[], Batcher], what: Callable[[Batcher], Awaitable[None]]) -> None:
    async def main() -> None:
        made = batcher()
        made.start()
        try:
            await what(made)
        finally:
            await made.stop()

    asyncio.run(main())


class Slow:
    """Doubles its jobs, once it is let go; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.begun = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        self.begun.set()
        self.go.wait(10)
        if 13 in jobs:
            raise ValueError("13")
        return [2 * job for job in jobs]


async def until(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait, 10)


def test_what_arrives_during_a_batch_is_the_next_one_and_everyone_gets_his_own() -> None:
    slow = Slow()

    async def check(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(1, 10))
        await until(slow.begun)
        others = [asyncio.create_task(batcher.submit(n, 10)) for n in range(2, 8)]
        await asyncio.sleep(0)
        slow.go.set()
        assert await first == 2
        assert await asyncio.gather(*others) == [4, 6, 8, 10, 12, 14]

    run(lambda: MicroBatcher(slow, 4, 0.0, 100), check)
    assert slow.batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_past_its_budget_a_request_stops_waiting_and_is_never_run() -> None:
    slow = Slow()

    async def check(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(1, 10))
        await until(slow.begun)
        with pytest.raises(DeadlineError, match="20 ms"):
            await batcher.submit(2, 0.02)
        slow.go.set()
        assert await first == 2
        assert await batcher.submit(3, 10) == 6

    run(lambda: MicroBatcher(slow, 4, 0.0, 100), check)
    assert slow.batches == [[1], [3]]


def test_a_bad_request_fails_alone() -> None:
    slow = Slow()
    slow.go.set()

    async def check(batcher: Batcher) -> None:
        results = await asyncio.gather(*(batcher.submit(n, 10) for n in (12, 13, 14)), return_exceptions=True)
        assert results[0] == 24
        assert isinstance(results[1], ValueError)
        assert results[2] == 28

    run(lambda: MicroBatcher(slow, 4, 0.01, 100), check)


def test_a_full_queue_refuses_at_once() -> None:
    slow = Slow()

    async def check(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.submit(1, 10))]
        await until(slow.begun)
        waiting += [asyncio.create_task(batcher.submit(n, 10)) for n in (2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.submit(4, 10)
        slow.go.set()
        assert await asyncio.gather(*waiting) == [2, 4, 6]

    run(lambda: MicroBatcher(slow, 4, 0.0, 2), check)
