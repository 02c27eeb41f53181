"""A control plane, its cluster and its drivers, moved by hand, one round at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fake_cluster import FakeCluster
from fake_driver import Drivers, script
from service_fixtures import ClockedDatabase
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import events, idempotency, jobs, submission
from service.cluster import NodeSeen, RayJob, ServeApp
from service.db import insert_together
from service.projects import DEFAULT
from service.reconcile import Reconciler
from service.settings import Settings
from service.spec import JobSpec
from service.status import ACTIVE, TERMINAL, Reason, Status, Wish
from service.tables import Attempt, Event, Job, Metric, Student


class Crash(BaseException):
    """The control plane's process dies here."""


@dataclass
class Fuse:
    """Where a process dies: at the n-th boundary between two of its statements; never, when n is not reached.

    With `sleeps` it does not die but stands still there, until it is woken.
    """

    left: int = -1
    sleeps: bool = False
    burnt: bool = False
    asleep: asyncio.Event = field(default_factory=asyncio.Event)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def burn(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.burnt = True
            if not self.sleeps:
                raise Crash
            self.asleep.set()
            await self.woken.wait()


class FusedDatabase(ClockedDatabase):
    """The same database, over the same connections, for a process with a fuse."""

    def __init__(self, base: ClockedDatabase, fuse: Fuse) -> None:
        self.__dict__.update(base.__dict__)
        self.base = base
        self.fuse = fuse

    async def now(self, session: AsyncSession) -> datetime:
        return await self.base.now(session)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        await self.fuse.burn()
        async with super().write() as session:
            yield session
        await self.fuse.burn()


class FusedCluster:
    """The same cluster, for a process with a fuse."""

    def __init__(self, base: FakeCluster, fuse: Fuse) -> None:
        self.base = base
        self.fuse = fuse

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        await self.fuse.burn()
        await self.base.submit(submission_id, env)
        await self.fuse.burn()

    async def jobs(self) -> dict[str, RayJob]:
        return await self.base.jobs()

    async def nodes(self) -> list[NodeSeen]:
        return await self.base.nodes()

    async def stop(self, submission_id: str) -> None:
        await self.fuse.burn()
        await self.base.stop(submission_id)
        await self.fuse.burn()

    async def apply_serve(self, config: dict[str, Any]) -> None:
        await self.fuse.burn()
        await self.base.apply_serve(config)
        await self.fuse.burn()

    async def serve_apps(self) -> dict[str, ServeApp]:
        return await self.base.serve_apps()

    async def close(self) -> None:
        await self.base.close()


class World:
    """Submit, wish, move; then look."""

    def __init__(self, db: ClockedDatabase, cluster: FakeCluster, settings: Settings) -> None:
        self.db = db
        self.cluster = cluster
        self.settings = settings
        self.drivers = Drivers(db, cluster)
        self.restart()

    def restart(self, fuse: Fuse | None = None) -> None:
        """A new control-plane process: nothing is remembered but what is stored."""
        self.reconciler = self.plane(fuse)

    def plane(self, fuse: Fuse | None = None) -> Reconciler:
        """One more control-plane process."""
        if fuse is None:
            return Reconciler(self.db, self.cluster, self.settings)
        return Reconciler(FusedDatabase(self.db, fuse), FusedCluster(self.cluster, fuse), self.settings)

    async def submit(self, **spec: Any) -> str:
        body = {"teacher": "digits", "method": {"kind": "progressive"}, **spec}
        async with self.db.write() as session:
            job = await submission.submit(session, DEFAULT, JobSpec.model_validate(body), await self.db.now(session))
        return job.id

    async def submit_once(self, key: str, **spec: Any) -> str:
        """Submit with an Idempotency-Key."""
        async with self.db.write() as session:
            now = await self.db.now(session)
            known: str | None = await idempotency.claim(self.db, session, DEFAULT, key, "same", now)
            if known is not None:
                return known
            body = {"teacher": "digits", "method": {"kind": "progressive"}, **spec}
            job = await submission.submit(session, DEFAULT, JobSpec.model_validate(body), now)
            await insert_together(session, [idempotency.row(DEFAULT, key, "same", job.id, now)])
        return job.id

    async def wish(self, job_id: str, wish: Wish) -> None:
        async with self.db.write() as session:
            await jobs.wish(session, DEFAULT, job_id, wish, await self.db.now(session))

    async def retry(self, job_id: str) -> None:
        async with self.db.write() as session:
            await jobs.retry(session, DEFAULT, job_id, await self.db.now(session))

    async def round(self) -> None:
        """A little time passes everywhere."""
        await self.reconciler.tick()
        self.cluster.run_pending()
        self.cluster.settle_stops()
        await self.drivers.step()
        self.db.wait(1)

    async def until(self, job_id: str, *statuses: Status, rounds: int = 60) -> Job:
        for _ in range(rounds):
            job = await self.job(job_id)
            if job.status in statuses:
                return job
            await self.round()
        raise AssertionError(f"{job_id} is {job.status} ({job.reason}) after {rounds} rounds")

    async def job(self, job_id: str) -> Job:
        async with self.db.read() as session:
            return await jobs.load(session, job_id)

    async def attempts(self, job_id: str) -> list[Attempt]:
        async with self.db.read() as session:
            return list(await jobs.attempts(session, job_id))

    async def reasons(self, job_id: str) -> list[Reason]:
        async with self.db.read() as session:
            found = await events.events_after(session, job_id, 0, 1000)
        return [event.reason for event in found if event.type == "status" and event.reason is not None]

    async def check(self, job_id: str, steps: int | None = None) -> None:
        """What must hold of any job at any time, and of a finished one all the more."""
        async with self.db.read() as session:
            job = await jobs.load(session, job_id)
            numbers = (await session.scalars(select(Event.seq).where(Event.job_id == job_id).order_by(Event.seq))).all()
            tries = await jobs.attempts(session, job_id)
            metrics = await jobs.metrics(session, job_id, 0, 1000)
            left = (await session.scalars(select(Student).where(Student.job_id == job_id))).all()
        assert list(numbers) == list(range(1, job.last_event + 1))
        assert [attempt.number for attempt in tries] == list(range(1, job.attempt + 1))
        assert all(attempt.ended_at is not None for attempt in tries[:-1])
        assert (job.finished_at is not None) == (job.status in TERMINAL)
        assert job.look_at is not None or not _needs_a_look(job), f"{job.status}, wish {job.wish}: nobody looks at it"
        reasons = [attempt.reason for attempt in tries]
        assert job.preemptions == reasons.count(Reason.PREEMPTED)
        assert [row.step for row in metrics] == list(range(1, len(metrics) + 1))
        alive = [process.submission_id for process in self.cluster.started if process.alive]
        assert len(alive) == len(set(alive)), "an attempt runs twice at once"
        starts = [process.submission_id for process in self.cluster.started]
        if not self.cluster.heads_lost:  # an attempt that died unheard with its head is started again
            assert len(starts) == len(set(starts)), "an attempt was started twice"
        if job.status is Status.SUCCEEDED:
            assert len(metrics) == len([one for one in script() if one["type"] == "metrics"])
            assert [row.label for row in left] == ["progressive-4"]

    async def count(self, table: type[Any] = Metric) -> int:
        async with self.db.read() as session:
            return (await session.execute(select(func.count()).select_from(table))).scalar_one()


def _needs_a_look(job: Job) -> bool:
    if job.status in TERMINAL:
        return job.retries_asked > job.retries_done
    return job.status in ACTIVE or job.wish is not (Wish.PAUSE if job.status is Status.PAUSED else Wish.RUN)
