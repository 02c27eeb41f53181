"""Kill everything, again and again, while users submit jobs; then look whether anything was lost.

    python tests/chaos/run.py --seed 1 --kills 60 --cluster fake

A real PostgreSQL, two API processes and a reconciler process, and a cluster: from memory, whose drivers speak to the
real API, or a real local Ray with real training. The plan of kills follows from the seed; when they meet the processes
does not. Exit status 1 and a list of complaints when something is wrong.
"""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
PATH = [str(HERE), str(HERE.parent / "service")]
sys.path += PATH

import checker  # noqa: E402
import httpx  # noqa: E402
from control_plane import AT_START, Plane, preload, reconcile, serve  # noqa: E402
from eyes import Eyes  # noqa: E402
from pydantic import SecretStr  # noqa: E402
from stores import Postgres  # noqa: E402
from theatres import FakeTheatre, RealTheatre, Theatre  # noqa: E402
from users import Users  # noqa: E402

from deploy.head import port_is_free  # noqa: E402
from service.db import Database  # noqa: E402
from service.settings import Settings  # noqa: E402

PATIENCE = 2.0
"""Seconds to wait for a process to reach the point where it is to die; then it is killed where it is."""

UNFINISHED = "SELECT count(*) FROM jobs WHERE status NOT IN ('succeeded', 'failed', 'cancelled')"

SETTLE_SECONDS = 150.0
"""All jobs must be over within this time of the last kill; back-offs of up to 60 s are part of it."""


class Harness:
    """The processes, the plan, and the count of what was killed."""

    def __init__(self, theatre: Theatre, postgres: Postgres, folder: Path, rng: random.Random) -> None:
        self.theatre, self.postgres, self.rng = theatre, postgres, rng
        self.killed: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.eyes = Eyes(postgres.url)
        self.recoveries: set[asyncio.Task[None]] = set()
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

    async def start(self) -> str:
        """Everything up; returns the API key."""
        db = Database(self.postgres.url)
        await db.upgrade()
        await db.close()
        for plane in self.planes:
            plane.start()
        async with httpx.AsyncClient(trust_env=False) as http:
            for url in self.urls:
                await until(lambda url=url: answers(http, url), 60, f"{url} does not answer")
        return self.settings.api_key_file().read_text().strip()

    async def kill_plane(self, rng: random.Random) -> None:
        """SIGKILL one process of the control plane: anywhere, or at a point that it has by name."""
        plane = rng.choice([plane for plane in self.planes if plane.name not in self.busy])
        self.busy.add(plane.name)
        known = plane.trap.known()
        point = rng.choice(known) if known and rng.random() < 0.65 else None
        if point is not None:
            plane.trap.arm(point)
            if AT_START in point:
                plane.kill()
                await plane.dies(5)
                self._count(plane, None)
                plane.start()
        if point is None or not await plane.dies(PATIENCE):
            point = None
            plane.kill()
            await plane.dies(5)
        plane.trap.disarm()
        self._count(plane, point)
        await asyncio.sleep(rng.choice([0, 0, 0.5, 1.5]))
        plane.start()
        self.busy.discard(plane.name)

    def _count(self, plane: Plane, point: str | None) -> None:
        self.killed[plane.name] += 1
        if point is not None:
            self.points[point] += 1
        task = asyncio.create_task(self.eyes.recovery(time.monotonic()))
        self.recoveries.add(task)

    async def kill_store(self, rng: random.Random) -> None:
        """PostgreSQL is restarted as after a crash, or one of its processes is killed."""
        async with self.store:
            if rng.random() < 0.5:
                await asyncio.to_thread(self.postgres.restart)
                self.killed["postgres restart"] += 1
            elif await asyncio.to_thread(self.postgres.kill_backend):
                self.killed["postgres process"] += 1

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

    async def keep_up(self) -> None:
        """A process that died unasked is a failure of its own; one that is being killed is started by its killer."""
        while True:
            await asyncio.sleep(0.2)
            for plane in self.planes:
                if plane.name not in self.busy and plane.dead():
                    self.killed[f"({plane.name} DIED BY ITSELF)"] += 1
                    plane.start()

    async def close(self) -> None:
        for plane in self.planes:
            plane.end()
        await self.eyes.close()


async def chaos(seed: int, kills: int, theatre: Theatre, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Run it all; returns the complaints."""
    rng = random.Random(seed)
    postgres = await asyncio.to_thread(Postgres, folder / "pg")
    harness = Harness(theatre, postgres, folder, rng)
    try:
        key = await harness.start()
        users = Users(harness.urls, key, theatre.spec, random.Random(rng.random()), theatre.most_open, theatre.flaky)
        return await _chaos(harness, users, kills, say)
    finally:
        await harness.close()
        postgres.close()


async def _chaos(harness: Harness, users: Users, kills: int, say: Callable[[str], None]) -> list[str]:
    started, stop, eyes, theatre = time.monotonic(), asyncio.Event(), harness.eyes, harness.theatre

    async def unfinished() -> int:
        found = await eyes.fetch(UNFINISHED)
        users.open = int(found[0][0])
        return users.open

    async def watch() -> None:
        while True:
            await unfinished()
            await theatre.look(eyes)
            await asyncio.sleep(0.1)

    helpers = [asyncio.create_task(watch()), asyncio.create_task(harness.keep_up())]
    working = asyncio.create_task(users.run(stop))
    try:
        await until(lambda: ready(users), 120, "no job was accepted")
        await harness.storm(kills, say)
        say(f"{harness.count()} kills in {time.monotonic() - started:.0f} s; now everything is left alone")
        stop.set()
        await asyncio.wait_for(working, 60)
        await users.resume_all()
        settling = time.monotonic()
        problems: list[str] = []
        try:
            await until(lambda: none_left(unfinished), SETTLE_SECONDS, "jobs are stuck")
            await until(lambda: none_left(theatre.count_alive), 60, "drivers are left behind")
            await asyncio.wait_for(asyncio.gather(*harness.recoveries), 60)
        except TimeoutError as error:
            problems.append(str(error) or "not all that was due has been taken up")
        say(f"settled in {time.monotonic() - settling:.0f} s")
    finally:
        for helper in helpers:
            helper.cancel()
        working.cancel()
    state = await _state(harness, users)
    problems += [*users.complaints, *theatre.complaints(), *checker.complaints(state)]
    problems += [f"{name}: {n} times" for name, n in harness.killed.items() if "ITSELF" in name]
    problems += _slow(eyes.recoveries, 2 * theatre.lease_seconds)
    _tell(say, harness, state, problems)
    return problems


async def _state(harness: Harness, users: Users) -> checker.State:
    db = Database(harness.postgres.url)
    theatre = harness.theatre
    alive = await asyncio.to_thread(theatre.alive)
    state = await checker.read(
        db, accepted=dict(users.accepted), runs=theatre.runs(), alive=alive, figure=theatre.figure
    )
    await db.close()
    return state


def _slow(recoveries: list[float], limit: float) -> list[str]:
    return [f"a recovery took {seconds:.1f} s, longer than two leases" for seconds in recoveries if seconds > limit]


def _tell(say: Callable[[str], None], harness: Harness, state: checker.State, problems: list[str]) -> None:
    statuses = Counter(str(job["status"]) for job in state.jobs)
    attempts = Counter(str(attempt["reason"]) for attempt in state.attempts)
    say(f"killed: {harness.count()} = {dict(sorted(harness.killed.items()))}")
    say(f"at named points: {sum(harness.points.values())} kills at {len(harness.points)} points")
    for point, n in sorted(harness.points.items()):
        say(f"    {n:4d}  {point}")
    say(f"{len(state.jobs)} jobs {dict(statuses)}, {len(state.metrics)} metrics, {len(state.events)} events")
    say(f"{len(state.attempts)} attempts {dict(attempts)}")
    times = sorted(harness.eyes.recoveries)
    if times:
        say(f"recovery: p50 {times[len(times) // 2]:.2f} s, max {times[-1]:.2f} s ({len(times)} deaths)")
    say(f"{len(problems)} complaints")
    for problem in problems:
        say(f"    {problem}")


async def until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():  # type: ignore[misc]
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        await asyncio.sleep(0.1)


async def none_left(count: Callable[[], object]) -> bool:
    return await count() == 0  # type: ignore[misc]


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, below the range from which systems number outgoing connections."""
    found = [port for port in random.sample(range(20_000, 32_000), 50) if port_is_free("127.0.0.1", port)]
    return found[:n]


async def ready(users: Users) -> bool:
    return len(users.accepted) > 0


async def answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--cluster", choices=["fake", "real"], default="fake")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run without complaints too")
    options = parser.parse_args()
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - start:7.1f}  {line}", flush=True)

    preload(PATH)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o755)  # PostgreSQL runs as a user of its own where this one is root
    theatre: Theatre = FakeTheatre(options.seed) if options.cluster == "fake" else RealTheatre(folder)
    with theatre:
        problems = asyncio.run(chaos(options.seed, options.kills, theatre, folder, say))
    if problems or options.keep:
        say(f"the processes' logs are in {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
