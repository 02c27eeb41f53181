"""The harness's own look into the database, which may be away at the moment."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import asyncpg

HELD_OR_DUE = "SELECT id, look_at, lease_token FROM jobs WHERE look_at <= clock_timestamp()"

OTHERS = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
DROP_ALL = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"


@dataclass
class Eyes:
    """Asks again until the database answers."""

    url: str
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each death of a control-plane process until all that was due or held then had been taken up."""
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
                await asyncio.sleep(0.05)

    async def recovery(self, died_at: float) -> None:
        """Measure the recovery from a death at `died_at` (monotonic clock)."""
        waiting = set(await self.fetch(HELD_OR_DUE))
        while waiting:
            await asyncio.sleep(0.05)
            waiting &= set(await self.fetch(HELD_OR_DUE))
        self.recoveries.append(time.monotonic() - died_at)

    async def drop_connections(self) -> None:
        """End every other client's connection."""
        await self.fetch(DROP_ALL)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
