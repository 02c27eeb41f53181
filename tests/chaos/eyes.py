"""The harness's own look into the database, which may be away at the moment."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import asyncpg

HELD_OR_DUE = """
SELECT id, look_at, lease_token FROM jobs WHERE look_at <= clock_timestamp() OR lease_token IS NOT NULL
"""

OTHERS = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
DROP_ALL = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"


@dataclass
class Recovery:
    """From the death of a control-plane process until all that was due or held then had been taken up."""

    began: float = field(default_factory=time.monotonic)
    clock: str = field(default_factory=lambda: time.strftime("%X"))
    waiting: set[tuple[Any, ...]] | None = None
    last: set[tuple[Any, ...]] = field(default_factory=set)
    """What was taken up last."""
    seconds: float = 0.0
    served: float = 0.0
    """Seconds of these in which there were both a database and another process that could take it up."""

    def see(self, due: set[tuple[Any, ...]], now: float, served: bool) -> bool:
        """What is due or held `now`; whether that ends the recovery."""
        passed = now - self.began - self.seconds
        self.seconds += passed
        self.served += passed if served else 0.0
        self.last = self.waiting or set()
        self.waiting = due if self.waiting is None else self.waiting & due
        return not self.waiting


@dataclass
class Eyes:
    """Asks again until the database answers."""

    url: str
    recoveries: list[Recovery] = field(default_factory=list)
    recovering: list[Recovery] = field(default_factory=list)
    outages: int = 0
    _connection: Any = None
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, query: str) -> list[tuple[Any, ...]]:
        while True:
            try:
                async with self._one:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await asyncpg.connect(self.url.replace("+asyncpg", ""), timeout=5)
                    return [tuple(row) for row in await self._connection.fetch(query, timeout=5)]
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                self._connection = None
                self.outages += 1
                await asyncio.sleep(0.05)

    def a_death(self) -> None:
        """A process of the control plane has just died."""
        self.recovering.append(Recovery())

    async def look(self, somebody_is_up: bool) -> None:
        """See how far the recoveries have come; to be called all the time."""
        if not self.recovering:
            return
        outages = self.outages
        due = set(await self.fetch(HELD_OR_DUE))
        now = time.monotonic()
        for recovery in list(self.recovering):
            if recovery.see(due, now, somebody_is_up and outages == self.outages):
                self.recovering.remove(recovery)
                self.recoveries.append(recovery)

    async def drop_connections(self) -> None:
        """End every other client's connection."""
        await self.fetch(DROP_ALL)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
