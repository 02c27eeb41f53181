"""The queue's rows: what is admitted, who is asked for room, and what a waiting job is told."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from fake_cluster import FakeCluster
from fake_driver import report, student
from service_fixtures import ClockedDatabase
from sqlalchemy import func, select, update
from world import World

from service import attempts, endpoints, events, jobs, nodes, projects, queue, students, submission
from service.cluster import NodeSeen
from service.errors import InvalidRequest
from service.meters import Meters
from service.observations import StudentExported
from service.projects import DEFAULT
from service.settings import Settings
from service.spec import JobSpec
from service.status import Reason, Status, Wish
from service.tables import Attempt, Job, Project, Student, Teacher

S, R = Status, Reason
OTHER = "prj_11111111111111111111111111"


class Queue:
    """Jobs of two projects on machines of one's choice."""

    def __init__(self, db: ClockedDatabase, settings: Settings, teacher: Teacher) -> None:
        self.db = db
        self.settings = settings.model_copy(update={"max_running": 100})
        self.teacher = teacher

    async def project(self, project: str = DEFAULT, **limits: Any) -> None:
        async with self.db.write() as session:
            await projects.ensure_default(session, await self.db.now(session))
            if await session.get(Project, project) is None:
                session.add(Project(id=project, name=project, created_at=await self.db.now(session), **limits))
            elif limits:
                await session.execute(update(Project).where(Project.id == project).values(**limits))

    async def machines(self, *machines: tuple[float, float]) -> None:
        async with self.db.write() as session:
            seen = [NodeSeen(f"n{i}", cpus=cpus, gpus=gpus) for i, (cpus, gpus) in enumerate(machines)]
            await nodes.store(session, seen, await self.db.now(session))

    async def submit(self, gpus: float = 1, workers: int = 1, priority: int = 0, project: str = DEFAULT) -> str:
        body = {
            "teacher": "digits",
            "method": {"kind": "progressive", "batch_size": 4 * workers},
            "priority": priority,
            "resources": {"workers": workers, "gpus_per_worker": gpus},
        }
        async with self.db.write() as session:
            now = await self.db.now(session)
            return (await submission.submit(session, project, JobSpec.model_validate(body), now)).id

    async def admit(self) -> int:
        return await queue.admit(self.db, self.settings, Meters())

    async def job(self, job_id: str) -> Job:
        async with self.db.read() as session:
            return await jobs.load(session, job_id)

    async def set(self, job_id: str, **values: Any) -> None:
        async with self.db.write() as session:
            await session.execute(update(Job).where(Job.id == job_id).values(**values))

    async def attempt(self, job_id: str) -> Attempt:
        async with self.db.read() as session:
            found = await attempts.current(session, await jobs.load(session, job_id))
            assert found is not None
            return found

    async def waiting(self, job_id: str) -> str | None:
        async with self.db.read() as session:
            now = await self.db.now(session)
            return await queue.waiting(session, await jobs.load(session, job_id), self.settings, now)


@pytest.fixture
async def line(db: ClockedDatabase, settings: Settings, digits: Teacher) -> Queue:
    made = Queue(db, settings, digits)
    await made.project()
    await made.machines((8, 4))
    return made


async def test_an_admitted_job_has_its_attempt_and_is_looked_at_at_once(line: Queue) -> None:
    one, two = await line.submit(gpus=1.5, workers=2), await line.submit(gpus=2)
    await line.set(one, not_before=(await line.job(one)).created_at, attempt=0)
    assert await line.admit() == 1
    job, attempt = await line.job(one), await line.attempt(one)
    assert (job.status, job.reason, job.attempt, job.not_before) == (S.STARTING, R.DISPATCHED, 1, None)
    assert job.look_at == jobs.AT_ONCE
    assert (attempt.number, attempt.gpus, attempt.submitted_at) == (1, 3.0, None)
    assert (await line.job(two)).status is S.QUEUED
    assert await line.admit() == 0
    async with line.db.read() as session:
        told = await events.events_after(session, one, 0, 10)
    assert [event.seq for event in told] == [1, 2, 3]


async def test_nothing_is_admitted_before_the_cluster_was_seen(line: Queue) -> None:
    await line.machines()
    one = await line.submit(gpus=0)
    assert await line.admit() == 0
    assert await line.waiting(one) == "the cluster has not been seen yet"


async def test_who_is_not_ready_is_left_alone(line: Queue) -> None:
    paused, resting, ready = [await line.submit() for _ in range(3)]
    await line.set(paused, wish=Wish.PAUSE)
    later = (await line.job(resting)).created_at + timedelta(hours=1)
    await line.set(resting, not_before=later, reason=R.DRIVER_DIED)
    assert await line.admit() == 1
    assert (await line.job(ready)).status is S.STARTING
    assert await line.waiting(paused) is None
    assert await line.waiting(resting) == f"backs off until {later:%H:%M:%S} UTC after a lost machine"
    line.db.wait(3601)
    assert await line.admit() == 1
    assert (await line.job(resting)).status is S.STARTING


async def test_quotas(line: Queue) -> None:
    await line.project(max_gpus=3.0)
    await line.submit(gpus=2)
    assert await line.admit() == 1
    blocked = await line.submit(gpus=2)
    assert await line.admit() == 0
    assert await line.waiting(blocked) == "project quota: 2 of 3 GPUs in use, it needs 2"
    await line.project(max_gpus=None, max_jobs=1)
    assert await line.admit() == 0
    assert await line.waiting(blocked) == "project quota: 1 of 1 jobs on the cluster"
    await line.project(max_jobs=2)
    assert await line.admit() == 1


async def test_gpu_hours_are_those_of_thirty_days(line: Queue) -> None:
    await line.project(max_gpu_hours=10.0)
    first = await line.submit(gpus=2)
    assert await line.admit() == 1
    second = await line.submit(gpus=1)
    line.db.wait(4 * 3600)
    assert str(await line.waiting(second)).startswith("the cluster has not answered since ")
    await line.machines((8, 4))
    assert await line.waiting(second) == "it starts in a moment"
    line.db.wait(1.1 * 3600)
    await line.machines((8, 4))
    for ended in (False, True):
        if ended:
            async with line.db.write() as session:
                await attempts.end(session, await line.attempt(first), R.EXPORTED, "", await line.db.now(session))
            await line.set(first, status=S.SUCCEEDED)
        assert await line.admit() == 0
        assert await line.waiting(second) == "project has used 10.2 of 10 GPU-hours of the last 30 days"
    await line.submit(gpus=0)
    assert await line.admit() == 1
    line.db.wait(30 * 86400 - 3600)  # of the hours of the first, one is still inside
    assert await line.admit() == 1
    assert (await line.job(second)).status is S.STARTING


async def test_endpoints_and_running_jobs_take_place(line: Queue) -> None:
    line.settings = line.settings.model_copy(update={"replica_gpus": 1.0})
    first = await line.submit(gpus=1)
    async with line.db.write() as session:
        now = await line.db.now(session)
        exported = report(student()).observations[0]
        assert isinstance(exported, StudentExported)
        await students.store(session, await jobs.load(session, first), exported, now)
        left = (await session.scalars(select(Student))).one()
        await endpoints.create(session, "digits", left, False, now)
    assert await line.admit() == 1
    second = await line.submit(gpus=4)
    assert await line.admit() == 0
    assert await line.waiting(second) == "needs 4 GPUs, 2 free"


async def test_the_queue_tells_how_many_are_ahead(line: Queue) -> None:
    await line.project(OTHER)
    await line.machines((8, 8))
    line.settings = line.settings.model_copy(update={"max_running": 1})
    await line.submit()
    assert await line.admit() == 1
    mine = [await line.submit() for _ in range(2)]
    await line.submit(project=OTHER)  # younger
    await line.submit(project=OTHER, priority=3)
    full = "1 of 1 jobs are on the cluster"
    assert await line.waiting(mine[0]) == f"{full}; 1 job is ahead of it"
    assert await line.waiting(mine[1]) == f"{full}; 2 jobs are ahead of it"
    line.settings = line.settings.model_copy(update={"max_running": 9})
    assert await line.admit() == 4
    assert await line.waiting(mine[1]) is None
    assert await line.waiting(await line.submit(gpus=0)) == "it starts in a moment"


async def test_a_hundred_that_do_not_fit_hide_none_that_does(line: Queue) -> None:
    for _ in range(60):
        await line.submit(gpus=8)
    small = await line.submit(gpus=1)
    assert await line.admit() == 1
    assert (await line.job(small)).status is S.STARTING


async def test_who_makes_room_is_asked_once_and_its_place_is_kept(line: Queue) -> None:
    low = [await line.submit(gpus=2) for _ in range(2)]
    assert await line.admit() == 2
    urgent = await line.submit(gpus=2, priority=5)
    for _ in range(2):
        assert await line.admit() == 0
    asked = [await line.attempt(one) for one in low]
    assert [attempt.asked_reason for attempt in asked] == [None, R.PREEMPTED]  # the newest
    assert asked[1].asked_at is not None
    job = await line.job(low[1])
    assert (job.status, job.look_at) == (S.STARTING, jobs.AT_ONCE)
    async with line.db.read() as session:
        told = [event for event in await events.events_after(session, low[1], 0, 10) if event.reason is R.PREEMPTED]
    assert [event.message for event in told] == [
        "Attempt 1 was asked to save and make room for a job of higher priority."
    ]
    assert await line.waiting(urgent) == "needs 2 GPUs, 0 free, 2 being freed"
    small = await line.submit(gpus=1)
    await line.set(low[1], status=S.QUEUED, requeued_at=(await line.job(low[1])).created_at)
    assert await line.admit() == 1
    assert [(await line.job(one)).status for one in (urgent, small)] == [S.STARTING, S.QUEUED]


async def test_a_preempted_job_goes_on_when_the_urgent_one_is_done(
    db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher
) -> None:
    cluster.machines = [NodeSeen("n0", cpus=2, gpus=0)]
    world = World(db, cluster, settings)
    low = await world.submit()
    await world.until(low, S.RUNNING)
    urgent = await world.submit(priority=5, resources={"workers": 1, "cpus_per_worker": 2})
    job = await world.until(low, S.QUEUED)
    assert (job.reason, job.not_before) == (R.PREEMPTED, None)
    assert (await world.until(urgent, S.STARTING, S.RUNNING)).attempt == 1
    assert (await world.job(low)).status is S.QUEUED
    await world.until(urgent, S.SUCCEEDED)
    job = await world.until(low, S.SUCCEEDED)
    assert (job.failures, job.losses, job.preemptions, job.attempt) == (0, 0, 1, 2)
    assert [attempt.reason for attempt in await world.attempts(low)] == [R.PREEMPTED, R.EXPORTED]
    assert (await world.job(urgent)).preemptions == 0
    for one in (low, urgent):
        await world.check(one)


async def test_priority_beyond_the_projects_is_refused(line: Queue) -> None:
    await line.project(max_priority=3)
    await line.submit(priority=3)
    with pytest.raises(InvalidRequest) as refused:
        await line.submit(priority=4)
    assert refused.value.pointers[0].pointer == "/priority"
    assert "3 at most" in refused.value.detail


async def test_many_processes_admit_each_job_once(line: Queue) -> None:
    ids = [await line.submit(gpus=0.5) for _ in range(12)]
    others = [ClockedDatabase(line.db.url.render_as_string(hide_password=False)) for _ in range(5)]
    if line.db.is_sqlite:  # which serves one process
        others = [line.db] * 5
    for _ in range(4):
        await asyncio.gather(*(queue.admit(db, line.settings, Meters()) for db in others))
    states = [(await line.job(one)).status for one in ids]
    assert states == [S.STARTING] * 8 + [S.QUEUED] * 4
    async with line.db.read() as session:
        assert (await session.execute(select(func.count()).select_from(Attempt))).scalar_one() == 8
    for db in others:
        if db is not line.db:
            await db.close()
