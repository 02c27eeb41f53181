"""Leases: one holder at a time, on the database's clock, and nothing written by who lost them."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_cluster import FakeCluster
from fake_driver import report
from service_fixtures import ClockedDatabase
from sqlalchemy import text, update
from world import World

import service.db
from service import attempts, jobs, reconcile
from service.cluster import NodeSeen
from service.leases import LOOK_SECONDS, DutyLease, JobLeases, forget_all
from service.settings import Settings
from service.status import Reason, Status, Wish
from service.tables import Attempt, Job, Teacher

SECONDS = 15.0
S, R = Status, Reason


@pytest.fixture
def world(db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher) -> World:
    return World(db, cluster, settings)


async def running(world: World) -> str:
    """A job that trains, and that nobody has to look at now."""
    job_id = await world.submit()
    async with world.db.write() as session:
        now = await world.db.now(session)
        job = await jobs.load(session, job_id)
        await jobs.advance(session, job, S.STARTING, R.DISPATCHED, now, attempt=1)
        await attempts.create(session, job_id, 1, now)
        await jobs.advance(session, await jobs.load(session, job_id), S.RUNNING, R.TRAINING, now)
    return job_id


async def call(db: ClockedDatabase, *job_ids: str, at: datetime = jobs.AT_ONCE) -> None:
    async with db.write() as session:
        await session.execute(update(Job).where(Job.id.in_(job_ids)).values(look_at=at))


async def test_each_job_has_one_holder(world: World) -> None:
    ids = [await running(world) for _ in range(5)]
    leases = JobLeases(world.db, SECONDS)
    assert (await leases.claim(9)).jobs == []  # nobody has called for a look
    await call(world.db, *ids, at=datetime(2020, 1, 1, tzinfo=UTC))
    await call(world.db, ids[4])
    first, second = await asyncio.gather(leases.claim(2), JobLeases(world.db, SECONDS).claim(9))
    held = [{job.id for job in claim.jobs} for claim in (first, second)]
    assert not held[0] & held[1]
    assert held[0] | held[1] == set(ids)
    assert any(claim.jobs[0].id == ids[4] for claim in (first, second))  # who is to be looked at at once goes first
    assert set(first.attempts) == held[0]
    assert first.token != second.token
    assert (await leases.claim(9)).jobs == []


async def test_an_expired_lease_is_taken_over_and_the_late_holder_changes_nothing(world: World) -> None:
    job_id = await running(world)
    await call(world.db, job_id)
    slow, quick = JobLeases(world.db, SECONDS), JobLeases(world.db, SECONDS)
    late = await slow.claim(9)
    assert late.expired == 0
    world.db.wait(SECONDS - 1)
    assert (await quick.claim(9)).jobs == []
    world.db.wait(2)
    claim = await quick.claim(9)
    assert [job.id for job in claim.jobs] == [job_id]
    assert claim.expired == 1

    async with world.db.write() as session:
        job, now = await jobs.load(session, job_id), await world.db.now(session)
        session.expunge(job)
        attempt = late.attempts[job_id]
        assert not await jobs.advance(session, job, S.FAILED, R.DIVERGED, now, lease=late.token)
        assert not await attempts.mark(session, attempt, late.token, asked_at=now)
    await slow.release(late, [job_id])
    assert (await world.job(job_id)).lease_token == claim.token
    await slow.extend(late)
    world.db.wait(SECONDS + 1)  # had the late one's heartbeat counted, the lease would not be over

    async with world.db.write() as session:
        assert await attempts.mark(session, attempt, claim.token, asked_at=now)
        assert await jobs.advance(session, job, S.FAILED, R.DIVERGED, now, lease=claim.token)
    await quick.release(claim, [job_id])
    job = await world.job(job_id)
    assert (job.status, job.look_at, job.lease_token, job.lease_expires_at) == (S.FAILED, None, None, None)


async def test_on_sqlite_a_new_process_does_not_wait_for_the_dead_ones_leases(world: World) -> None:
    job_id = await running(world)
    await call(world.db, job_id)
    assert (await JobLeases(world.db, SECONDS).claim(9)).jobs
    async with DutyLease(world.db, "cluster", SECONDS).held() as mine:
        assert mine
    await forget_all(world.db)
    assert [job.id for job in (await JobLeases(world.db, SECONDS).claim(9)).jobs] == [job_id]
    async with DutyLease(world.db, "cluster", SECONDS).held() as mine:
        assert mine


async def test_a_heartbeat_keeps_the_lease(world: World) -> None:
    job_id = await running(world)
    await call(world.db, job_id)
    leases, others = JobLeases(world.db, 6.0), JobLeases(world.db, 6.0)
    claim = await leases.claim(9)
    until = claim.now + timedelta(seconds=6)
    async with leases.kept(claim):
        world.db.wait(5)  # a second is left of it
        async with asyncio.timeout(60):
            while (expires := (await world.job(job_id)).lease_expires_at) is not None and expires <= until:
                await asyncio.sleep(0.05)
        world.db.wait(3)  # without the heartbeat it would be over
        assert (await others.claim(9)).jobs == []
    world.db.wait(10)
    assert (await others.claim(9)).expired == 1


async def test_a_call_is_heeded_once_and_never_lost(world: World) -> None:
    job_id = await running(world)
    leases = JobLeases(world.db, SECONDS)
    await call(world.db, job_id)
    claim = await leases.claim(9)
    await leases.release(claim, [job_id])
    assert (await leases.claim(9)).jobs == []  # heeded
    world.db.wait(LOOK_SECONDS + 1)
    claim = await leases.claim(9)  # on the cluster: looked at now and then
    await world.wish(job_id, Wish.CANCEL)
    assert (await leases.claim(9)).jobs == []
    await leases.release(claim, [job_id])
    claim = await leases.claim(9)  # the wish came while it was held
    assert [job.wish for job in claim.jobs] == [Wish.CANCEL]
    await leases.release(claim, [job_id], again=True)
    assert (await world.job(job_id)).look_at is not None


async def test_wishes_retries_and_decisive_words_call_for_a_look(world: World) -> None:
    job_id = await running(world)
    (attempt,) = await world.attempts(job_id)
    said: list[dict[str, Any]] = [
        {"type": "log", "message": "hello"},
        {"type": "metrics", "step": 1, "stage": 0, "values": {}},
        {"type": "phase", "phase": "training"},
        {"type": "done"},
    ]
    for number, one in enumerate(said, start=1):
        await call(world.db, job_id, at=datetime(2999, 1, 1, tzinfo=UTC))
        async with world.db.write() as session:
            await attempts.report(session, attempt.id, report(one, start=number), await world.db.now(session))
        assert ((await world.job(job_id)).look_at == jobs.AT_ONCE) == (number > 2)
    for wish in (Wish.PAUSE, Wish.CANCEL):
        await call(world.db, job_id, at=datetime(2999, 1, 1, tzinfo=UTC))
        await world.wish(job_id, wish)
        assert (await world.job(job_id)).look_at == jobs.AT_ONCE
    async with world.db.write() as session:
        job = await jobs.load(session, job_id)
        await jobs.advance(session, job, S.CANCELLED, R.USER_CANCEL, await world.db.now(session), look_at=None)
    await world.retry(job_id)
    assert (await world.job(job_id)).look_at == jobs.AT_ONCE


async def test_leases_run_on_the_databases_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if world.db.is_sqlite:
        return  # there is one process, on one machine

    class Fast(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(minutes=10)

    monkeypatch.setattr(service.db, "datetime", Fast)
    job_id = await running(world)
    await call(world.db, job_id)
    await JobLeases(world.db, SECONDS).claim(9)
    async with world.db.read() as session:
        query = text("SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::float FROM jobs")
        left: float = (await session.execute(query)).scalar_one()
    assert SECONDS - 5 < left <= SECONDS


async def test_a_duty_is_one_processs_until_it_is_gone(db: ClockedDatabase) -> None:
    first, second, *rest = (DutyLease(db, "sealing", SECONDS) for _ in range(8))

    async def taken(duty: DutyLease) -> bool:
        async with duty.held() as mine:
            return mine

    assert sum(await asyncio.gather(*(taken(duty) for duty in (first, second, *rest)))) == 1
    (holder,) = [duty for duty in (first, second, *rest) if await taken(duty)]
    other = second if holder is first else first
    for _ in range(4):  # who comes again keeps it
        db.wait(SECONDS - 2)
        assert await taken(holder)
        assert not await taken(other)
    async with DutyLease(db, "another", SECONDS).held() as mine:
        assert mine
    db.wait(SECONDS + 1)
    assert await taken(other)
    assert not await taken(holder)
    await holder.release()  # what is another's by now stays the other's
    assert not await taken(holder)
    await other.release()
    assert await taken(holder)


class CountingCluster(FakeCluster):
    """Remembers every call that starts something."""

    def __init__(self) -> None:
        super().__init__()
        self.submits: Counter[str] = Counter()

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        self.submits[submission_id] += 1
        await asyncio.sleep(0)  # the others get a chance
        await super().submit(submission_id, env)


SHORT = [{"type": "phase", "phase": "training"}, {"type": "phase", "phase": "evaluating"}, {"type": "done"}]


async def test_64_reconcilers_never_run_one_job_twice(
    db: ClockedDatabase, settings: Settings, digits: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "BATCH", 8)  # so that they all have some
    cluster = CountingCluster()
    cluster.machines = [NodeSeen(f"node-{i}", cpus=32, gpus=0) for i in range(6)]
    world = World(db, cluster, settings.model_copy(update={"max_running": 200}))
    world.drivers.script, world.drivers.sends = SHORT, 1
    ids = [await world.submit() for _ in range(64)]
    planes = [world.plane() for _ in range(64)]
    for _ in range(40):
        await asyncio.gather(*(plane.tick_jobs() for plane in planes))
        cluster.run_pending()
        await world.drivers.step()
        async with db.read() as session:
            if (await jobs.count_by_status(session)) == {S.SUCCEEDED: 64}:
                break
    assert set(cluster.submits.values()) == {1}
    assert len(cluster.started) == len(cluster.submits) == 64
    for job_id in ids[::10]:
        assert await world.reasons(job_id) == [R.SUBMITTED, R.DISPATCHED, R.TRAINING, R.EVALUATING, R.EXPORTED]
    async with db.read() as session:
        assert (await jobs.count_by_status(session)) == {S.SUCCEEDED: 64}
    assert await world.count(Attempt) == 64
