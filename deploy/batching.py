"""Requests of one model, gathered into batches while its replica is busy with the last."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Full(Exception):
    """No room for these items; try again in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass
class _Waiting(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher(Generic[Key, Item, Result]):
    """Runs `run(key, items) -> results` for items that share a key, the keys in turn.

    There is no timer: an idle replica gets what is there at once, a busy one gets the next batch when it ends the last,
    and a second batch is sent ahead only when it is full, so that a loaded replica never waits for the network.
    """

    def __init__(
        self, run: Callable[[Key, list[Item]], Awaitable[list[Result]]], max_batch: int, in_flight: int
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._room = in_flight
        self._in_flight = in_flight
        self._queues: OrderedDict[Key, deque[_Waiting[Item, Result]]] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._seconds_per_item = 0.0

    async def submit(self, key: Key, items: list[Item]) -> list[Result]:
        """The items' results, in order. Raises Full at once, or what `run` raised. Cancelled items are not run."""
        if len(items) > self._room:
            raise Full(max(1, math.ceil((self._in_flight - self._room) * self._seconds_per_item)))
        self._room -= len(items)
        waiting = [_Waiting[Item, Result](item) for item in items]
        self._queues.setdefault(key, deque()).extend(waiting)
        asyncio.get_running_loop().call_soon(self._dispatch)
        try:
            return await asyncio.gather(*(one.future for one in waiting))
        finally:
            self._room += len(items)

    def _dispatch(self) -> None:
        while len(self._running) < 2 and (key := self._next_key()) is not None:
            queue = self._queues[key]
            batch: list[_Waiting[Item, Result]] = []
            while queue and len(batch) < self._max_batch:
                one = queue.popleft()
                if not one.future.done():
                    batch.append(one)
            if queue:
                self._queues.move_to_end(key)
            else:
                del self._queues[key]
            if batch:
                task = asyncio.create_task(self._settle(key, batch))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    def _next_key(self) -> Key | None:
        enough = self._max_batch if self._running else 1
        return next((key for key, queue in self._queues.items() if len(queue) >= enough), None)

    async def _settle(self, key: Key, batch: list[_Waiting[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            results = await self._run(key, [one.item for one in batch])
        except Exception as error:
            for one in batch:
                if not one.future.done():
                    one.future.set_exception(error)
        else:
            self._seconds_per_item = (loop.time() - started) / len(batch)
            for one, result in zip(batch, results, strict=True):
                if not one.future.done():
                    one.future.set_result(result)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._running.discard(task)
            self._dispatch()
