"""The processes of a chaos run, and what is done to them."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
from control_plane import AT_START, Plane, reconcile, serve
from eyes import Eyes
from pydantic import SecretStr
from stores import Postgres
from theatres import Theatre

from deploy.head import port_is_free
from service.db import Database
from service.settings import Settings

NAMED = 0.7
"""Share of the control plane's deaths that are to be at a point with a name."""

PATIENCE = 1.5
"""Seconds to wait for a process to reach that point; then the same for any point; then it is killed where it is."""

SPARED = 0.85
"""Share of the control plane's deaths that leave another process alive, and let the dead one come up again first."""

DIED = "(died unasked)"


class Harness:
    """The processes, the plan, and the count of what was killed."""

    def __init__(self, theatre: Theatre, postgres: Postgres, folder: Path, rng: random.Random) -> None:
        self.theatre, self.postgres, self.rng = theatre, postgres, rng
        self.killed: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.eyes = Eyes(postgres.url)
        ports = free_ports(2)
        settings = Settings(
            home=folder / "home",
            database_url=postgres.url,
            port=ports[0],
            public_url=f"http://127.0.0.1:{ports[0]}",
            ray_dashboard_url=theatre.url,
            ray_token=SecretStr(theatre.token),
            reconcile_interval=0.2,
            lease_seconds=theatre.lease_seconds,
            max_running=theatre.max_running,
            max_losses=10_000,
            cancel_deadline=theatre.cancel_deadline,
            stall_deadline=120,
        )
        self.settings = settings
        other = settings.model_copy(update={"port": ports[1], "public_url": f"http://127.0.0.1:{ports[1]}"})
        self.planes = [
            Plane("api-1", serve, settings, folder),
            Plane("api-2", serve, other, folder),
            Plane("reconciler", reconcile, settings, folder),
        ]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.busy: set[str] = set()
        self.store = asyncio.Lock()
        self._diary = folder / "diary"

    async def start(self) -> str:
        """Everything up; returns the API key."""
        db = Database(self.postgres.url)
        await db.upgrade()
        await db.close()
        for plane in self.planes:
            plane.start()
        async with httpx.AsyncClient(trust_env=False) as http:
            for url in self.urls:
                await until(partial(answers, http, url), 60, f"{url} does not answer")
        return self.settings.api_key_file().read_text().strip()

    def note(self, what: str) -> None:
        """For whoever reads the processes' logs afterwards."""
        with self._diary.open("a") as file:
            file.write(f"{datetime.now(UTC):%H:%M:%S.%f} {what}\n")

    async def kill_plane(self, rng: random.Random) -> None:
        """SIGKILL one process of the control plane: anywhere, or at a point that it has by name."""
        spare = rng.random() < SPARED
        while not (targets := [plane for plane in self.planes if plane.name not in self.busy]) or (
            spare and len(targets) < 2
        ):
            await asyncio.sleep(0.05)
        plane = rng.choice(targets)
        self.busy.add(plane.name)
        known = plane.trap.known()
        if rng.random() < NAMED and known:
            point = rng.choice(known)
            plane.trap.arm(point)
            if AT_START in point:
                plane.kill()
                await plane.dies(5)
                self._count(plane, None)
                plane.start()
            if not await plane.dies(PATIENCE):
                plane.trap.arm_any(rng.randrange(8))
                await plane.dies(PATIENCE)
        plane.kill()
        await plane.dies(5)
        self._count(plane, plane.trap.disarm())
        await asyncio.sleep(rng.choice([0, 0, 0.5, 1.5]))
        plane.start()
        if rng.random() < SPARED:
            await plane.comes_up(30)
            self.note(f"{plane.name} is up")
        self.busy.discard(plane.name)

    def _count(self, plane: Plane, point: str | None) -> None:
        self.killed[plane.name] += 1
        self.note(f"killed {plane.name} {point or 'anywhere'}")
        if point is not None:
            self.points[point] += 1
        self.eyes.a_death()

    async def kill_store(self, rng: random.Random) -> None:
        """PostgreSQL is restarted as after a crash, or one of its processes is killed."""
        async with self.store:
            if rng.random() < 0.5:
                await asyncio.to_thread(self.postgres.restart)
                self.killed["postgres restart"] += 1
                self.note("postgres restarted")
            elif await asyncio.to_thread(self.postgres.kill_backend):
                self.killed["postgres process"] += 1
                self.note("killed a process of postgres")

    async def disturb(self, rng: random.Random) -> None:
        """What kills nobody: dropped connections, lost answers."""
        if rng.random() < 0.5:
            await self.eyes.drop_connections()
            self.killed["(dropped connections)"] += 1
        elif await self.theatre.disturb(rng):
            self.killed["(answers of Ray lost)"] += 1

    async def kill(self, rng: random.Random) -> None:
        """One kill of the plan."""
        before = self.count()
        while self.count() == before:
            kind = rng.choices(["plane", "store", "cluster"], self.theatre.weights)[0]
            if kind == "plane":
                await self.kill_plane(rng)
            elif kind == "store":
                await self.kill_store(rng)
            elif (name := await self.theatre.kill(rng)) is not None:
                self.killed[name] += 1
                self.note(f"killed {name}")
            else:
                await asyncio.sleep(0.1)

    def count(self) -> int:
        return sum(n for name, n in self.killed.items() if not name.startswith("("))

    async def storm(self, kills: int, say: Callable[[str], None]) -> None:
        """Kills until there were `kills`, from two sides at once."""

        async def side(seed: float) -> None:
            rng = random.Random(seed)
            while self.count() < kills:
                await self.kill(rng)
                if rng.random() < 0.15:
                    await self.disturb(rng)
                await asyncio.sleep(rng.uniform(0, self.theatre.pause))

        async def tell() -> None:
            while True:
                await asyncio.sleep(10)
                say(f"{self.count():5d} kills: {dict(sorted(self.killed.items()))}")

        teller = asyncio.create_task(tell())
        await asyncio.gather(*(side(self.rng.random()) for _ in range(self.theatre.sides)))
        teller.cancel()

    def somebody_is_up(self) -> bool:
        return any(plane.up() for plane in self.planes)

    async def keep_up(self) -> None:
        """Start what died unasked: without a database a start must fail, and everything later is a complaint."""
        while True:
            await asyncio.sleep(0.2)
            for plane in self.planes:
                if plane.name not in self.busy and plane.dead():
                    self.killed[DIED if plane.trap.working() else "(failed starts)"] += 1
                    plane.start()

    async def close(self) -> None:
        for plane in self.planes:
            plane.end()
        await self.eyes.close()


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, below the range from which systems number outgoing connections."""
    found = [port for port in random.sample(range(20_000, 32_000), 50) if port_is_free("127.0.0.1", port)]
    return found[:n]


async def answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        await asyncio.sleep(0.1)
