"""What the control plane does when its disk is full, its database is away, or a clock is wrong."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from fake_cluster import FakeCluster
from fake_driver import report
from service_fixtures import ClockedDatabase
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs
from world import World

from service import attempts, auth, jobs, listing, outage
from service.db import Database
from service.errors import DatabaseUnavailable, StorageFull, Unauthorized
from service.leases import JobLeases
from service.meters import Meters
from service.projects import DEFAULT
from service.settings import Settings
from service.status import Role, Status
from service.tables import Attempt, Job, Metric, Teacher

MINUTES = timedelta(minutes=10)


@pytest.fixture
def world(db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher) -> World:
    return World(db, cluster, settings)


class FullDisk:
    """While it is on, the database can store nothing that needs room."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __aenter__(self) -> None:
        if not self._db.is_sqlite:
            async with self._db.write() as session:
                raises = "BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END"
                await session.execute(
                    text(f"CREATE FUNCTION full_disk() RETURNS trigger AS $${raises}$$ LANGUAGE plpgsql")
                )
                for table in ("events", "metrics"):
                    trigger = f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()"
                    await session.execute(text(trigger))
            return
        event.listen(self._db._engine.sync_engine, "connect", self._limit)
        await self._db._engine.dispose()

    async def __aexit__(self, *_: object) -> None:
        if not self._db.is_sqlite:
            async with self._db.write() as session:
                await session.execute(text("DROP FUNCTION full_disk CASCADE"))
            return
        event.remove(self._db._engine.sync_engine, "connect", self._limit)
        await self._db._engine.dispose()

    @staticmethod
    def _limit(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count = 1")  # as many as there are
        cursor.close()


async def test_on_a_full_disk_nothing_is_half_written_and_all_goes_on_when_there_is_room(world: World) -> None:
    job_id = await world.submit()
    attempt = await started(world, job_id)
    metrics = [{"type": "metrics", "step": n, "stage": 0, "values": {"loss": 1.0}} for n in range(1, 400)]
    async with FullDisk(world.db):
        stored = [job_id]
        with pytest.raises(DBAPIError) as refused:
            await fill(world, stored)
        assert isinstance(outage.of_database(refused.value), StorageFull)
        assert await world.count(Job) == len(stored)
        with pytest.raises(DBAPIError) as refused:
            await send(world, attempt, metrics)
        assert isinstance(outage.of_database(refused.value), StorageFull)
        assert await world.count(Metric) == 0
        assert (await world.attempts(job_id))[0].acknowledged == 0
    assert (await send(world, attempt, metrics)).acknowledged == len(metrics)
    assert await world.count(Metric) == len(metrics)
    await world.submit()


async def started(world: World, job_id: str) -> Attempt:
    """Its first attempt, which has not said anything yet."""
    await world.reconciler.tick()
    (attempt,) = await world.attempts(job_id)
    return attempt


async def fill(world: World, stored: list[str]) -> None:
    for _ in range(100):  # SQLite's last pages have room for a few
        stored.append(await world.submit(name="x" * 60))


async def send(world: World, attempt: Attempt, said: list[dict[str, Any]]) -> Any:
    async with world.db.write() as session:
        now = await world.db.now(session)
        return await attempts.report(session, attempt.id, report(*said), now)


async def test_a_database_that_is_away_is_told_from_a_bug(postgres: Callable[[], str]) -> None:
    gone = Database("postgresql+asyncpg://me:secret@127.0.0.1:9/none")
    with pytest.raises(OSError) as refused:  # noqa: PT011  (each system words it in its own way)
        async with gone.read() as session:
            await session.execute(text("SELECT 1"))
    assert isinstance(outage.of_database(refused.value), DatabaseUnavailable)
    await gone.close()
    db = Database(await asyncio.to_thread(postgres))
    with pytest.raises(DBAPIError) as ended:
        async with db.write() as session:
            await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert isinstance(outage.of_database(ended.value), DatabaseUnavailable)
    with pytest.raises(DBAPIError) as bug:
        async with db.read() as session:
            await session.execute(text("SELECT nothing FROM nowhere"))
    assert outage.of_database(bug.value) is None
    assert outage.of_database(KeyError("x")) is None
    await db.close()


@pytest.mark.parametrize("shift", [MINUTES, -MINUTES], ids=["ahead", "behind"])
async def test_on_postgresql_a_control_planes_own_clock_moves_nothing(
    shift: timedelta, postgres: Callable[[], str], cluster: FakeCluster, settings: Settings
) -> None:
    url = await asyncio.to_thread(postgres)
    right, wrong = ClockedDatabase(url), ClockedDatabase(url)
    world = await _world(right, cluster, settings)
    await world.submit()
    async with right.write() as session:
        now = await right.now(session)
        _, key = await auth.create(session, DEFAULT, "k", Role.MEMBER, timedelta(minutes=5), now)
        _, over = await auth.create(session, DEFAULT, "o", Role.MEMBER, timedelta(minutes=-5), now)
        await session.execute(update(Job).values(look_at=jobs.AT_ONCE))
    held = await JobLeases(right, settings.lease_seconds).claim(10)
    async with right.write() as session:
        await session.execute(update(Job).values(look_at=jobs.AT_ONCE))
    with time_machine.travel(datetime.now(UTC) + shift, tick=True):
        async with wrong.read() as session:
            assert abs((await wrong.now(session)) - now) < timedelta(minutes=1)
        claimed = await JobLeases(wrong, settings.lease_seconds).claim(10)
        keyring = auth.Keyring(wrong)
        assert (await keyring.check(key)).role is Role.MEMBER
        with pytest.raises(Unauthorized):
            await keyring.check(over)
        # A whole life under the wrong clock: nothing expires, stalls, or is charged.
        world.restart()
        world.db = world.drivers.db = wrong
        world.reconciler = world.plane()
        second = await world.submit()
        job = await world.until(second, Status.SUCCEEDED)
    assert (job.losses, job.failures, job.attempt) == (0, 0, 1)
    assert abs(job.created_at - now) < timedelta(minutes=2)
    assert len(held.jobs) == 1
    assert not claimed.jobs
    for db in (right, wrong):
        await db.close()


async def _world(db: ClockedDatabase, cluster: FakeCluster, settings: Settings) -> World:
    from service_fixtures import FACTS

    from service import projects, teachers

    async with db.write() as session:
        now = await db.now(session)
        await projects.ensure_default(session, now)
        await teachers.register(session, teachers.SHARED, "digits", teachers.BUILTIN, FACTS, now)
    return World(db, cluster, settings)


@pytest.mark.parametrize("shift", [MINUTES, -MINUTES], ids=["ahead", "behind"])
async def test_a_wrong_clock_on_the_jobs_machine_breaks_neither_eta_nor_stall_detection(
    shift: timedelta, world: World
) -> None:
    job_id = await world.submit()
    attempt = await started(world, job_id)
    start = (datetime.now(UTC) + shift).timestamp()
    said = [{"type": "phase", "phase": "training", "at": start}]
    said += [{"type": "metrics", "step": n, "stage": 0, "values": {}, "at": start + n} for n in range(1, 11)]
    with capture_logs() as lines:
        await send(world, attempt, said)
    world.cluster.run_pending()
    await world.reconciler.tick()
    job = await world.job(job_id)
    async with world.db.read() as session:
        eta = (await listing.etas(session, [job]))[job_id]
        progressed = (await session.scalars(select(Attempt.progressed_at))).one()
    assert eta == pytest.approx(job.total_steps - 10)  # one step a second
    assert progressed is not None
    assert abs(progressed - datetime.now(UTC)) < timedelta(minutes=1)
    assert job.status is Status.RUNNING
    assert "reports.wrong_clock" in [line["event"] for line in lines]


async def test_the_gauges_are_those_of_the_rows(world: World) -> None:
    meters = Meters()
    await world.submit()
    world.db.wait(100)
    await meters.refresh(world.db)
    value = meters.registry.get_sample_value
    assert value("fewstep_jobs", {"status": "queued"}) == 1
    assert value("fewstep_queue_oldest_seconds") == pytest.approx(100, abs=10)
    await world.submit()
    await meters.refresh(world.db)  # within a second: what was read is shown again
    assert value("fewstep_jobs", {"status": "queued"}) == 1
    async with world.db.write() as session:
        now = await world.db.now(session)
        await session.execute(update(Job).values(look_at=now - timedelta(seconds=50)))
        await meters.read(session, now)
        assert value("fewstep_jobs", {"status": "queued"}) == 2
        assert value("fewstep_reconcile_lag_seconds") == pytest.approx(50, abs=1)
        await session.execute(
            Job.__table__.update().values(look_at=jobs.AT_ONCE, updated_at=now - timedelta(seconds=7))
        )  # type: ignore[attr-defined]
        await meters.read(session, now)
        assert value("fewstep_reconcile_lag_seconds") == pytest.approx(7, abs=1)
