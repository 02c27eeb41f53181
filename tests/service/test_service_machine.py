"""The control plane as a state machine: whatever users, machines and crashes do, no job is lost, doubled or stuck."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from service_fixtures import FACTS, ClockedDatabase
from world import Crash, Fuse, World

from service import events, jobs, teachers
from service.errors import AttemptFenced, Conflict, InProgress
from service.settings import Settings
from service.status import TERMINAL, TRANSITIONS, Reason, Status, Wish
from service.tables import Teacher

SMALL = settings(
    max_examples=12, stateful_step_count=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


class Stored(RuleBasedStateMachine):
    """What both machines need: an event loop, an empty store with a teacher, and jobs to choose from."""

    make_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.db = ClockedDatabase(type(self).make_url())
        self.home = Path(tempfile.mkdtemp())
        self.world = World(self.db, FakeCluster(), Settings(home=self.home, max_losses=50))
        self.ids: list[str] = []
        self.now(self._teach())

    def now(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _teach(self) -> None:
        async with self.db.write() as session:
            found: Teacher = await teachers.register(
                session, teachers.SHARED, "digits", teachers.BUILTIN, FACTS, await self.db.now(session)
            )
        assert found.id

    def one(self, number: int) -> str:
        return self.ids[number % len(self.ids)]

    def attempt(self, ask: Awaitable[Any]) -> None:
        """A user asks; being refused is fine."""

        async def ask_for() -> None:
            with contextlib.suppress(Conflict):
                await ask

        self.now(ask_for())

    def teardown(self) -> None:
        self.now(self.db.close())
        self.runner.close()
        shutil.rmtree(self.home)


numbers = st.integers(0, 3)


class Door(Stored):
    """advance() is the one door: it knows TRANSITIONS, refuses the rest, and each move leaves its event."""

    @initialize()
    def submit(self) -> None:
        self.ids.append(self.now(self.world.submit()))
        self.path = [Status.QUEUED]

    async def _advance(self, to: Status, stale: Status | None = None) -> bool:
        async with self.db.write() as session:
            job = await jobs.load(session, self.ids[0])
            session.expunge(job)
            if stale is not None:
                job.status = stale
            return await jobs.advance(session, job, to, Reason.TRAINING, await self.db.now(session))

    @rule(to=st.sampled_from(Status))
    def move(self, to: Status) -> None:
        if to in TRANSITIONS[self.path[-1]]:
            assert self.now(self._advance(to))
            self.path.append(to)
        else:
            with pytest.raises(ValueError, match="is not a move"):
                self.now(self._advance(to))

    @rule(seen=st.sampled_from(Status), to=st.sampled_from(Status))
    def move_on_old_news(self, seen: Status, to: Status) -> None:
        if seen is not self.path[-1] and to in TRANSITIONS[seen]:
            assert not self.now(self._advance(to, stale=seen))

    @invariant()
    def the_events_tell_the_path(self) -> None:
        async def told() -> tuple[list[Status | None], Status]:
            async with self.db.read() as session:
                found = await events.events_after(session, self.ids[0], 0, 1000)
                return [event.status for event in found], (await jobs.load(session, self.ids[0])).status

        moves, status = self.now(told())
        assert moves == self.path
        assert status is self.path[-1]


class ControlPlane(Stored):
    """Users, the reconciler, drivers and Ray in any order, with anything dying at any time."""

    sleepers: list[tuple[Fuse, asyncio.Task[None]]]

    @initialize()
    def start(self) -> None:
        self.sleepers = []
        self.submit()

    @rule(priority=st.integers(0, 2))
    @precondition(lambda self: len(self.ids) < 5)
    def submit(self, priority: int = 0) -> None:
        """What is more urgent than what runs makes it give way: the cluster has two places."""
        self.ids.append(self.now(self.world.submit(priority=priority)))

    @rule(number=numbers)
    @precondition(lambda self: len(self.ids) < 5)
    def submit_twice(self, number: int) -> None:
        """The same request with the same key, at once and again later."""

        async def both() -> list[str]:
            return await asyncio.gather(*(self._patient(f"key-{number}") for _ in range(2)))

        first, second = self.now(both())
        assert first == second
        if first not in self.ids:
            self.ids.append(first)

    async def _patient(self, key: str) -> str:
        while True:
            try:
                return await self.world.submit_once(key)
            except InProgress:
                await asyncio.sleep(0.01)

    @rule(number=numbers, wish=st.sampled_from(Wish))
    def ask(self, number: int, wish: Wish) -> None:
        self.attempt(self.world.wish(self.one(number), wish))

    @rule(number=numbers)
    def retry(self, number: int) -> None:
        self.attempt(self.world.retry(self.one(number)))

    @rule()
    def tick(self) -> None:
        self.now(self.world.reconciler.tick())

    @rule(boundary=st.integers(0, 12))
    def the_control_plane_dies(self, boundary: int) -> None:
        """Between two statements of a tick, or after it."""

        async def die() -> None:
            with contextlib.suppress(Crash):
                try:
                    await self.world.reconciler.tick()
                except* Crash:
                    raise Crash from None

        self.world.restart(Fuse(boundary))
        self.now(die())
        self.world.restart()

    @rule(boundary=st.integers(0, 12))
    @precondition(lambda self: len(self.sleepers) < 2)
    def a_control_plane_stands_still(self, boundary: int) -> None:
        """Another one than the usual: it goes on later, on what it knew then."""

        async def fall_asleep() -> None:
            fuse = Fuse(boundary, sleeps=True)
            tick = asyncio.create_task(self.world.plane(fuse).tick())
            asleep = asyncio.create_task(fuse.asleep.wait())
            await asyncio.wait({tick, asleep}, return_when=asyncio.FIRST_COMPLETED)
            asleep.cancel()
            if tick.done():
                await tick
            else:
                self.sleepers.append((fuse, tick))

        self.now(fall_asleep())

    @rule()
    @precondition(lambda self: self.sleepers)
    def it_wakes(self) -> None:
        async def wake() -> None:
            fuse, tick = self.sleepers.pop(0)
            fuse.woken.set()
            await tick

        self.now(wake())

    @rule(number=numbers)
    def a_dead_driver_is_heard(self, number: int) -> None:
        """Its last report was on its way when it died."""

        async def hear() -> None:
            spoke = [one for one in self.world.drivers.drivers.values() if one.writer is not None]
            dead = [one for one in spoke if not one.process.alive and one.said < len(one.script)]
            if dead:
                with contextlib.suppress(AttemptFenced, Conflict):
                    await dead[number % len(dead)].speak()

        self.now(hear())

    @rule(rounds=st.integers(1, 6))
    def drivers_speak(self, rounds: int) -> None:
        self.world.cluster.run_pending()
        for _ in range(rounds):
            self.now(self.world.drivers.step())

    @rule(seconds=st.sampled_from([1, 20, 40, 700]))
    def time_passes(self, seconds: int) -> None:
        self.db.wait(seconds)

    @rule()
    def stops_settle(self) -> None:
        self.world.cluster.settle_stops()

    @rule(number=numbers)
    def a_driver_dies(self, number: int) -> None:
        alive = [job.submission_id for job in self.world.cluster.known.values() if job.alive]
        if alive:
            self.world.cluster.kill(alive[number % len(alive)])

    @rule()
    def the_head_dies(self) -> None:
        self.world.cluster.lose_head()

    @rule(down=st.booleans(), lose=st.booleans())
    def the_network_changes(self, down: bool, lose: bool) -> None:
        self.world.cluster.down, self.world.cluster.lose_answers = down, lose

    @invariant()
    def every_job_is_in_order(self) -> None:
        for job_id in self.ids:
            self.now(self.world.check(job_id))

    def teardown(self) -> None:
        """Once nothing goes wrong any more, every job ends where its user wants it."""
        try:
            while self.sleepers:
                self.it_wakes()
            self.world.cluster.down = self.world.cluster.lose_answers = False
            for job_id in self.ids:
                self.now(self._ends_as_wished(job_id))
                self.now(self.world.check(job_id))
        finally:
            super().teardown()

    async def _ends_as_wished(self, job_id: str) -> None:
        job = await self.world.job(job_id)
        for _ in range(150):
            retried = job.retries_asked > job.retries_done
            if not retried and (job.status in TERMINAL or (job.status, job.wish) == (Status.PAUSED, Wish.PAUSE)):
                return
            await self.world.round()
            job = await self.world.job(job_id)
        raise AssertionError(f"{job.id} is stuck: {job.status} ({job.reason}), wish {job.wish}")


@pytest.mark.parametrize("machine", [Door, ControlPlane])
def test_whatever_happens(machine: type[Stored], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    template: Path = request.getfixturevalue("sqlite_template")
    made = 0

    def fresh() -> str:
        nonlocal made
        made += 1
        return f"sqlite+aiosqlite:///{shutil.copy(template, tmp_path / f'{made}.db')}"

    _run(machine, fresh)


@pytest.mark.parametrize("machine", [Door, ControlPlane])
def test_whatever_happens_on_postgres(machine: type[Stored], postgres: Callable[[], str]) -> None:
    _run(machine, postgres, max_examples=4)


def _run(machine: type[Stored], make_url: Callable[[], str], max_examples: int = SMALL.max_examples) -> None:
    bound = type(machine.__name__, (machine,), {"make_url": staticmethod(make_url)})
    run_state_machine_as_test(bound, settings=settings(SMALL, max_examples=max_examples))
