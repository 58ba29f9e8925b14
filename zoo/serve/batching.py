"""Collects what arrives at about the same time into batches for a function that likes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result]
    since_s: float  # of the event loop's clock


class Batcher(Generic[Item, Result]):
    """Runs `run` on up to `max_batch` items, in one thread of its own, in order of arrival.

    A batch starts when it is full, or `max_wait_s` after its first item arrived. While one runs
    the next one gathers; what is left over from it starts at once. Whoever submits bounds how
    many items may wait.
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Sequence[Result]], max_batch: int, max_wait_s: float
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zoo-model")
        self._loop = asyncio.create_task(self._work())

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._waiting)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Returns the results of the items once their batches ran; cancelling drops them.

        Raises:
            RuntimeError: After `close`.
            Exception: What `run` raised on one of their batches.
        """
        if self._closing:
            raise RuntimeError("The batcher is closed.")
        loop = asyncio.get_running_loop()
        added = [_Waiting(item, loop.create_future(), loop.time()) for item in items]
        self._waiting.extend(added)
        self._arrived.set()
        answers = [each.answer for each in added]
        try:
            return list(await asyncio.gather(*answers))
        finally:
            for answer in answers:  # of a request that was given up, or failed in another part
                answer.cancel()

    async def close(self) -> None:
        """Runs what was submitted, then ends the thread."""
        self._closing = True
        self._arrived.set()
        await self._loop
        self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._gather():
            try:
                results = await loop.run_in_executor(
                    self._thread, self._run, [each.item for each in batch]
                )
            except Exception as error:  # noqa: BLE001 - handed to those who wait for it
                for each in batch:
                    if not each.answer.done():
                        each.answer.set_exception(error)
                continue
            for each, result in zip(batch, results, strict=True):
                if not each.answer.done():
                    each.answer.set_result(result)

    async def _gather(self) -> list[_Waiting[Item, Result]]:
        """The next batch; empty when everything is done after `close`."""
        while True:
            while self._waiting and self._waiting[0].answer.done():
                self._waiting.popleft()  # given up while it waited
            if self._waiting and (self._closing or await self._is_due()):
                batch = self._take()
                if batch:
                    return batch
            elif not self._waiting:
                if self._closing:
                    return []
                self._arrived.clear()
                await self._arrived.wait()

    async def _is_due(self) -> bool:
        """Waits for one more item if there is time; says whether the batch shall start."""
        left_s = self._waiting[0].since_s + self._max_wait_s - asyncio.get_running_loop().time()
        if len(self._waiting) >= self._max_batch or left_s <= 0:
            return True
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), left_s)
        return False

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        while self._waiting and len(batch) < self._max_batch:
            each = self._waiting.popleft()
            if not each.answer.done():
                batch.append(each)
        return batch
