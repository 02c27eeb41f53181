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
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
PATH = [str(HERE), str(HERE.parent / "service")]
sys.path += PATH

import checker  # noqa: E402
from control_plane import preload  # noqa: E402
from eyes import Eyes, Recovery  # noqa: E402
from harness import DIED, Harness, until  # noqa: E402
from stores import Postgres  # noqa: E402
from theatres import FakeTheatre, RealTheatre, Theatre  # noqa: E402
from users import Users  # noqa: E402

from service.db import Database  # noqa: E402

UNFINISHED = "SELECT count(*) FROM jobs WHERE status NOT IN ('succeeded', 'failed', 'cancelled')"

SETTLE_SECONDS = 150.0
"""All jobs must be over within this time of the last kill; back-offs of up to 60 s are part of it."""


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
            await eyes.look(harness.somebody_is_up())
            await asyncio.sleep(0.1)

    helpers = [asyncio.create_task(watch()), asyncio.create_task(harness.keep_up())]
    working = asyncio.create_task(users.run(stop))
    try:
        await until(partial(ready, users), 120, "no job was accepted")
        await harness.storm(kills, say)
        say(f"{harness.count()} kills in {time.monotonic() - started:.0f} s; now everything is left alone")
        stop.set()
        await asyncio.wait_for(working, 60)
        await users.resume_all()
        settling = time.monotonic()
        problems: list[str] = []
        try:
            await until(partial(none_left, unfinished), SETTLE_SECONDS, "jobs are stuck")
            await until(partial(none_left, theatre.count_alive), 60, "drivers are left behind")
            await until(partial(recovered, eyes), 60, "not all that was due has been taken up")
        except TimeoutError as error:
            problems.append(str(error))
        say(f"settled in {time.monotonic() - settling:.0f} s")
    finally:
        for helper in helpers:
            helper.cancel()
        working.cancel()
    state = await _state(harness, users)
    problems += [*users.complaints, *theatre.complaints(), *checker.complaints(state)]
    problems += [f"{harness.killed[DIED]} processes died unasked"] if harness.killed[DIED] else []
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


def _slow(recoveries: list[Recovery], limit: float) -> list[str]:
    return [
        f"a recovery took {found.served:.1f} s, over two leases: {found.clock} {sorted(map(str, found.last))[:2]}"
        for found in recoveries
        if found.served > limit
    ]


def _tell(say: Callable[[str], None], harness: Harness, state: checker.State, problems: list[str]) -> None:
    theatre = harness.theatre
    statuses = Counter(str(job["status"]) for job in state.jobs)
    attempts = Counter(str(attempt["reason"]) for attempt in state.attempts)
    say(f"killed: {harness.count()} = {dict(sorted(harness.killed.items()))}")
    say(f"at named points: {sum(harness.points.values())} kills at {len(harness.points)} points")
    for point, n in sorted(harness.points.items()):
        say(f"    {n:4d}  {point}")
    say(f"{len(state.jobs)} jobs {dict(statuses)}, {len(state.metrics)} metrics, {len(state.events)} events")
    say(f"{len(state.attempts)} attempts {dict(attempts)}")
    if recoveries := harness.eyes.recoveries:
        total = sorted(found.seconds for found in recoveries)
        served = sorted(found.served for found in recoveries)
        middle = len(total) // 2
        say(f"recovery from {len(total)} deaths of control-plane processes, a lease being {theatre.lease_seconds} s:")
        say(f"    while another one and the database were there: p50 {served[middle]:.2f} s, max {served[-1]:.2f} s")
        say(f"    with the time when they were not:              p50 {total[middle]:.2f} s, max {total[-1]:.2f} s")
    say(f"{len(problems)} complaints")
    for problem in problems:
        say(f"    {problem}")


async def none_left(count: Callable[[], Awaitable[int]]) -> bool:
    return await count() == 0


async def recovered(eyes: Eyes) -> bool:
    return not eyes.recovering


async def ready(users: Users) -> bool:
    return len(users.accepted) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--cluster", choices=["fake", "real"], default="fake")
    parser.add_argument("--lease", type=float, default=5.0, help="seconds; recovery must take less than two")
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
    theatre.lease_seconds = options.lease
    with theatre:
        problems = asyncio.run(chaos(options.seed, options.kills, theatre, folder, say))
    if problems or options.keep:
        say(f"the processes' logs are in {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
