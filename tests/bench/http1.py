"""HTTP clients that cost next to nothing, so that two cores measure the server: raw connections, kept alive."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Ask = Callable[[int], bytes]
"""The n-th request, as bytes."""


def request(method: str, path: str, key: str, body: bytes = b"", headers: str = "") -> bytes:
    """One request; `headers` are whole lines, each with its line end."""
    content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n{headers}{content}\r\n"
    return head.encode() + body


class Connection:
    """One request at a time, each answered before the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    async def ask(self, message: bytes) -> tuple[int, bytes]:
        """Status and body."""
        self.writer.write(message)
        head = await self.reader.readuntil(b"\r\n\r\n")
        start = head.lower().index(b"content-length:") + 15
        body = await self.reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
        return int(head[9:12]), body

    def close(self) -> None:
        self.writer.close()


@dataclass
class Met:
    """What the clients met within `seconds`."""

    seconds: float
    expected: int
    latencies: list[float] = field(default_factory=list)
    others: dict[int, int] = field(default_factory=dict)

    def note(self, status: int, latency: float) -> None:
        if status == self.expected:
            self.latencies.append(latency)
        else:
            self.others[status] = self.others.get(status, 0) + 1

    @property
    def rate(self) -> float:
        """Answers of the expected status, per second."""
        return len(self.latencies) / self.seconds

    def ms(self, q: float) -> float:
        """A quantile of the latencies."""
        return 1000 * quantile(self.latencies, q)


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


async def saturate(port: int, ask: Ask, clients: int, seconds: float, expected: int, warm_up: float = 1.0) -> Met:
    """Closed loop: each client asks again as soon as it is answered, so the rate is all that the server can do."""
    start = time.perf_counter() + warm_up
    met = Met(seconds, expected)
    count = 0

    async def client() -> None:
        nonlocal count
        connection = await Connection.open(port)
        while (asked := time.perf_counter()) < start + seconds:
            count += 1
            status, _ = await connection.ask(ask(count))
            if start <= (now := time.perf_counter()) < start + seconds:
                met.note(status, now - asked)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return met


async def sustain(port: int, ask: Ask, rate: float, clients: int, seconds: float, expected: int) -> Met:
    """Open loop: requests come at their times, whatever the server does; waiting for a free connection counts."""
    met = Met(seconds, expected)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(clients):
        free.put_nowait(await Connection.open(port))

    async def one(number: int, due: float) -> None:
        connection = await free.get()
        status, _ = await connection.ask(ask(number))
        met.note(status, time.perf_counter() - due)
        free.put_nowait(connection)

    start = time.perf_counter()
    tasks: list[Awaitable[None]] = []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*tasks)
    for _ in range(clients):
        free.get_nowait().close()
    return met
