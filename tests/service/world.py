"""A control plane, its cluster and its drivers, moved by hand, one round at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fake_cluster import FakeCluster
from fake_driver import Drivers, script
from service_fixtures import ClockedDatabase
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import events, jobs, teachers
from service.db import Database
from service.projects import DEFAULT
from service.reconcile import Reconciler
from service.settings import Settings
from service.spec import JobSpec
from service.status import TERMINAL, Reason, Status, Wish
from service.tables import Attempt, Event, Job, Metric, Student


class Crash(BaseException):
    """The control plane's process dies here."""


@dataclass
class Fuse:
    """Dies at the n-th boundary between two statements; never, when n is not reached."""

    left: int = -1
    burnt: bool = False

    def burn(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.burnt = True
            raise Crash


class CrashingDatabase(ClockedDatabase):
    fuse: Fuse

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        self.fuse.burn()
        async with super().write() as session:
            yield session
        self.fuse.burn()


class CrashingCluster(FakeCluster):
    fuse: Fuse

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        self.fuse.burn()
        await super().submit(submission_id, env)
        self.fuse.burn()

    async def stop(self, submission_id: str) -> None:
        self.fuse.burn()
        await super().stop(submission_id)
        self.fuse.burn()

    async def apply_serve(self, config: dict[str, Any]) -> None:
        self.fuse.burn()
        await super().apply_serve(config)
        self.fuse.burn()


class World:
    """Submit, wish, move; then look."""

    def __init__(self, db: ClockedDatabase, cluster: FakeCluster, settings: Settings) -> None:
        self.db = db
        self.cluster = cluster
        self.settings = settings
        self.drivers = Drivers(db, cluster)
        self.restart()

    def restart(self) -> None:
        """A new control-plane process: nothing is remembered but what is stored."""
        self.reconciler = Reconciler(self.db, self.cluster, self.settings)

    async def submit(self, **spec: Any) -> str:
        body = {"teacher": "digits", "method": {"kind": "progressive"}, **spec}
        async with self.db.write() as session:
            teacher = await teachers.find(session, DEFAULT, "digits")
            job = await jobs.submit(session, DEFAULT, JobSpec.model_validate(body), teacher, await self.db.now(session))
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


def crashing(db: Database, fuse: Fuse) -> tuple[CrashingDatabase, CrashingCluster]:
    """The same database, and a new cluster, with the fuse between any two of their statements."""
    database = CrashingDatabase(db.url.render_as_string(hide_password=False))
    cluster = CrashingCluster()
    database.fuse = cluster.fuse = fuse
    return database, cluster
