"""How the gateway gathers requests, and what it does when there are too many."""

import asyncio

import pytest

from deploy.batching import Batcher, Full


class Replica:
    """Answers with the item itself, once it is let go."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.free = asyncio.Event()

    async def __call__(self, key: str, items: list[int]) -> list[str]:
        self.batches.append((key, items))
        await self.free.wait()
        return [f"{key}{item}" for item in items]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_idle_replica_gets_at_once_what_is_there() -> None:
    replica = Replica()
    replica.free.set()
    batcher = Batcher(replica, max_batch=4, in_flight=8)
    assert await asyncio.gather(*(batcher.submit("a", [i]) for i in range(3))) == [["a0"], ["a1"], ["a2"]]
    assert replica.batches == [("a", [0, 1, 2])]


async def test_a_busy_replica_gets_full_batches_ahead_and_the_rest_when_it_is_done() -> None:
    replica = Replica()
    batcher = Batcher(replica, max_batch=4, in_flight=20)
    first = asyncio.create_task(batcher.submit("a", [0]))
    await settle()
    others = [asyncio.create_task(batcher.submit("a", [i])) for i in range(1, 4)]
    await settle()
    assert [len(items) for _, items in replica.batches] == [1], "three more are not a full batch"
    others += [asyncio.create_task(batcher.submit("a", [i])) for i in range(4, 7)]
    await settle()
    assert [len(items) for _, items in replica.batches] == [1, 4], "never more than one batch ahead"
    replica.free.set()
    assert await first == ["a0"]
    assert await asyncio.gather(*others) == [[f"a{i}"] for i in range(1, 7)]
    assert [len(items) for _, items in replica.batches] == [1, 4, 2]


async def test_a_batch_has_one_key_and_the_keys_take_turns() -> None:
    replica = Replica()
    batcher = Batcher(replica, max_batch=2, in_flight=20)
    tasks = [asyncio.create_task(batcher.submit(key, [i])) for i, key in enumerate("aaaaab")]
    await settle()
    replica.free.set()
    await asyncio.gather(*tasks)
    assert replica.batches == [("a", [0, 1]), ("a", [2, 3]), ("b", [5]), ("a", [4])]


async def test_what_does_not_fit_is_refused_at_once_and_room_comes_back() -> None:
    replica = Replica()
    batcher = Batcher(replica, max_batch=2, in_flight=4)
    held = [asyncio.create_task(batcher.submit("a", [1, 2])) for _ in range(2)]
    await settle()
    with pytest.raises(Full) as refused:
        await batcher.submit("a", [5])
    assert refused.value.retry_after >= 1
    replica.free.set()
    await asyncio.gather(*held)
    assert await batcher.submit("a", [5]) == ["a5"]


async def test_who_leaves_is_not_served_and_makes_room() -> None:
    replica = Replica()
    batcher = Batcher(replica, max_batch=2, in_flight=4)
    first = asyncio.create_task(batcher.submit("a", [1]))
    await settle()
    leaver = asyncio.create_task(batcher.submit("a", [2]))
    await settle()
    leaver.cancel()
    await settle()
    last = asyncio.create_task(batcher.submit("b", [3, 4]))
    await settle()
    replica.free.set()
    assert await last == ["b3", "b4"]
    await first
    assert 2 not in [item for _, items in replica.batches for item in items]


async def test_a_failure_reaches_everybody_in_the_batch_and_nobody_else() -> None:
    async def fails_on_b(key: str, items: list[int]) -> list[str]:
        if key == "b":
            raise RuntimeError("broken")
        return [key for _ in items]

    batcher = Batcher(fails_on_b, max_batch=4, in_flight=8)
    answers = await asyncio.gather(*(batcher.submit(key, [0]) for key in "aabb"), return_exceptions=True)
    assert answers[:2] == [["a"], ["a"]]
    assert [type(answer) for answer in answers[2:]] == [RuntimeError, RuntimeError]
    assert await batcher.submit("a", [1]) == ["a"]
