"""Dynamic micro-batching: requests that arrive together share one forward pass, each with its own deadline.

One batch runs at a time, in a thread; what arrives meanwhile is the next batch. Knows nothing of models. Our choice.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class DeadlineError(TimeoutError):
    """The budget was spent before an answer was there."""


class QueueFullError(RuntimeError):
    """Too many requests wait already."""


@dataclass
class _Waiting(Generic[T, R]):
    job: T
    deadline: float
    future: "asyncio.Future[R]"


class MicroBatcher(Generic[T, R]):
    """Collects jobs and runs them in batches of at most `max_batch`.

    Args:
        run: answers a batch, in order; called in a thread, one call at a time.
        max_batch: jobs of one call.
        wait_s: how long a lone job waits for others; 0: not at all.
        max_queue: jobs that may wait.
        observe: told the size of every batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        max_batch: int,
        wait_s: float,
        max_queue: int,
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._run, self._max_batch, self._wait_s, self._max_queue = run, max_batch, wait_s, max_queue
        self._observe = observe
        self._queue: deque[_Waiting[T, R]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    @property
    def running(self) -> bool:
        """True between `start` and `stop`."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to answer. Call inside a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Stop; jobs still waiting are refused with `QueueFullError`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._queue:
            if not one.future.done():
                one.future.set_exception(QueueFullError("the server is stopping"))
        self._queue.clear()
        self._thread.shutdown(wait=True)

    async def submit(self, job: T, budget_s: float) -> R:
        """The answer of `job`.

        Raises:
            DeadlineError: it was not there within `budget_s`; a job not begun by then is never run.
            QueueFullError: the queue is full.
        """
        if len(self._queue) >= self._max_queue:
            raise QueueFullError(f"{self._max_queue} requests wait already")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(job, time.monotonic() + budget_s, future))
        self._arrived.set()
        try:
            return await asyncio.wait_for(future, max(budget_s, 0.0))
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {budget_s * 1000:.0f} ms") from error

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._wait_s and len(self._queue) < self._max_batch:
                await asyncio.sleep(self._wait_s)
            batch = self._take()
            if not self._queue:
                self._arrived.clear()
            if not batch:
                continue
            self._observe(len(batch))
            outcome = await loop.run_in_executor(self._thread, self._safely, [one.job for one in batch])
            for one, result in zip(batch, outcome, strict=True):
                if one.future.done():  # its deadline passed meanwhile
                    continue
                if isinstance(result, Exception):
                    one.future.set_exception(result)
                else:
                    one.future.set_result(result)

    def _take(self) -> list[_Waiting[T, R]]:
        """The next batch; whoever gave up waiting is left out."""
        now = time.monotonic()
        batch: list[_Waiting[T, R]] = []
        while self._queue and len(batch) < self._max_batch:
            one = self._queue.popleft()
            if not one.future.done() and one.deadline > now:
                batch.append(one)
        return batch

    def _safely(self, jobs: Sequence[T]) -> Sequence[R | Exception]:
        """Results or exceptions, in order. A batch that fails is run one by one, so that one job fails alone."""
        try:
            return self._run(jobs)
        except Exception as error:  # noqa: BLE001 it is handed to whoever asked
            if len(jobs) == 1:
                return [error]
            return [self._safely([job])[0] for job in jobs]
