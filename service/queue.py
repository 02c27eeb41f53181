"""The queue's rows: read into the terms of `service.admission`, and its plan written down. Ray is not asked here."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, case, extract, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from service import attempts, events, jobs, nodes
from service.admission import Plan, Promised, Scene, Share, Waiting, plan, why
from service.db import Database
from service.meters import Meters
from service.platform_tables import Node
from service.room import Machine, Shape
from service.serving import REPLICA_CPUS
from service.settings import Settings
from service.status import ACTIVE, Reason, Status, Wish
from service.tables import Attempt, Endpoint, Job, Project

log = structlog.get_logger(__name__)

FIRST = 50
"""Jobs of each project that one pass looks at, whatever their shapes."""

SILENCE = timedelta(seconds=30)
"""Its machines are looked at every few seconds; after so long without it, a cluster does not answer."""

HOURS_WINDOW = timedelta(days=30)
"""A project's GPU-hours are those of this time."""

MOVABLE = (Status.STARTING, Status.RUNNING)
"""States from which a job may be asked to make room; one that is finishing has nothing left to train."""

_SHAPE = (Job.workers, Job.cpus_per_worker, Job.gpus_per_worker)
_PLACE = (Job.id, Job.project_id, Job.priority, *_SHAPE)
_since = func.coalesce(Job.requeued_at, Job.created_at)


async def admit(db: Database, settings: Settings, meters: Meters) -> int:
    """Start what fits, and ask for room for what is more urgent than what runs; the number of jobs started.

    One transaction, and one process at a time: another one that is in it will see the same queue.
    """
    async with db.read() as session:  # most looks find nothing to do, and take no lock
        found = await _plan(session, settings, await db.now(session))
    if not found.admit and not found.preempt:
        return 0
    async with db.write() as session:
        if not await db.try_exclusive(session, "admission"):
            return 0
        now = await db.now(session)
        found = await _plan(session, settings, now)
        await _ask_for_room(session, found.preempt, now)
        started = await _start(session, found.admit, now)
    for waited in started:
        meters.moved(Status.STARTING, Reason.DISPATCHED)
        meters.queue_wait.observe(waited)
    return len(started)


async def waiting(session: AsyncSession, job: Job, settings: Settings, now: datetime) -> str | None:
    """What a queued job waits for, in clauses between semicolons; None when it is not queued or not wanted to run."""
    if job.status is not Status.QUEUED or job.wish is not Wish.RUN:
        return None
    clauses = []
    if job.not_before is not None and job.not_before > now:
        lost = job.reason in (Reason.DRIVER_DIED, Reason.CLUSTER_LOST, Reason.STALLED)
        cause = "a lost machine" if lost else "an error"
        clauses.append(f"backs off until {job.not_before:%H:%M:%S} UTC after {cause}")
    one = Waiting(job.id, job.project_id, job.priority, _shape(job), job.requeued_at or job.created_at)
    clauses += why(await _scene(session, settings, now, {job.project_id}), one)
    seen_at = (await session.execute(select(func.max(Node.seen_at)))).scalar_one()
    if seen_at is not None and now - seen_at > SILENCE:
        clauses.append(f"the cluster has not answered since {seen_at:%H:%M:%S} UTC")
    ahead = await _count_ahead(session, one, now)
    if ahead:
        clauses.append("1 job is ahead of it" if ahead == 1 else f"{ahead} jobs are ahead of it")
    return "; ".join(clauses) or "it starts in a moment"


async def _plan(session: AsyncSession, settings: Settings, now: datetime) -> Plan:
    queue = await _candidates(session, now)
    if not queue:
        return Plan()
    scene = await _scene(session, settings, now, {job.project for job in queue if job.shape.gpus})
    return plan(scene, queue) if scene.machines else Plan()


def _ready(now: datetime) -> ColumnElement[bool]:
    """Which jobs wait for nothing but their turn."""
    rested = or_(Job.not_before.is_(None), Job.not_before <= now)
    return (Job.status == Status.QUEUED) & (Job.wish == Wish.RUN) & rested


async def _candidates(session: AsyncSession, now: datetime) -> list[Waiting]:
    """The first jobs of each project, and behind them the first of each shape: where it does not fit, no like it will.

    So the pass stays short however long the queue is, and no number of jobs that do not fit hides one that does.
    """
    order = (Job.priority.desc(), Job.id)
    of_project = func.row_number().over(partition_by=Job.project_id, order_by=order)
    of_shape = func.row_number().over(partition_by=(Job.project_id, *_SHAPE), order_by=order)
    places = (_since.label("since"), of_project.label("of_project"), of_shape.label("of_shape"))
    ready = select(*_PLACE, *places).where(_ready(now)).subquery()
    first = (ready.c.of_project <= FIRST) | (ready.c.of_shape == 1)
    rows = (await session.execute(select(ready).where(first))).all()
    return [Waiting(row[0], row[1], row[2], Shape(*row[3:6]), row[6]) for row in rows]


async def _scene(session: AsyncSession, settings: Settings, now: datetime, gpu_projects: set[str]) -> Scene:
    machines = [Machine(node.cpus, node.gpus) for node in await nodes.known(session)]
    replicas = (await session.execute(select(func.count()).select_from(Endpoint))).scalar_one()
    return Scene(
        now=now,
        machines=machines,
        promised=await _promised(session),
        replicas=[Shape(replicas, REPLICA_CPUS, settings.replica_gpus)] if replicas else [],
        shares=await _shares(session, now, gpu_projects),
        max_running=settings.max_running,
        preemption=settings.preemption,
        reserve_after=settings.reserve_after,
    )


async def _promised(session: AsyncSession) -> list[Promised]:
    """Every job on the cluster, by the rows."""
    query = select(Job, Attempt.created_at, Attempt.asked_at).where(Job.status.in_(ACTIVE)).order_by(Job.id)
    query = query.join(Attempt, (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt))
    query = query.options(load_only(*_PLACE, Job.status, Job.wish, raiseload=True))
    found = []
    for job, since, asked_at in (await session.execute(query)).tuples():
        movable = job.status in MOVABLE
        leaving = asked_at is not None or job.wish is Wish.CANCEL or (job.wish is Wish.PAUSE and movable)
        found.append(Promised(job.id, job.project_id, job.priority, _shape(job), since, leaving, movable))
    return found


def _shape(job: Job) -> Shape:
    return Shape(job.workers, job.cpus_per_worker, job.gpus_per_worker)


async def _shares(session: AsyncSession, now: datetime, gpu_projects: set[str]) -> dict[str, Share]:
    limits = (Project.weight, Project.max_jobs, Project.max_gpus, Project.max_gpu_hours)
    rows = (await session.execute(select(Project.id, *limits))).tuples().all()
    limited = [row[0] for row in rows if row[-1] is not None and row[0] in gpu_projects]
    used = await _gpu_hours(session, limited, now) if limited else {}
    return {row[0]: Share(*row[1:], used.get(row[0], 0.0)) for row in rows}


async def _gpu_hours(session: AsyncSession, projects: Sequence[str], now: datetime) -> dict[str, float]:
    """GPU-hours of each project's attempts inside the window, running ones included."""
    instant = Attempt.created_at.type
    opens, closes = literal(now - HOURS_WINDOW, instant), literal(now, instant)
    start = case((Attempt.created_at < opens, opens), else_=Attempt.created_at)
    seconds = extract("epoch", func.coalesce(Attempt.ended_at, closes)) - extract("epoch", start)
    query = select(Job.project_id, func.sum(Attempt.gpus * seconds)).join(Job, Attempt.job_id == Job.id)
    query = query.where(Attempt.ended_at.is_(None) | (Attempt.ended_at > opens), Attempt.gpus > 0)
    rows = await session.execute(query.where(Job.project_id.in_(projects)).group_by(Job.project_id))
    return {project: float(gpu_seconds) / 3600 for project, gpu_seconds in rows.tuples()}


async def _count_ahead(session: AsyncSession, job: Waiting, now: datetime) -> int:
    """Jobs of higher priority, and those of the same that are older in its project or wait longer in another."""
    same = Job.project_id == job.project
    earlier = (same & (Job.id < job.id)) | (~same & (_since < job.since))
    ahead = (Job.priority > job.priority) | ((Job.priority == job.priority) & earlier)
    query = select(func.count()).select_from(Job).where(_ready(now), ahead, Job.id != job.id)
    return (await session.execute(query)).scalar_one()


async def _start(session: AsyncSession, ids: Sequence[str], now: datetime) -> list[float]:
    """Give each of them its next attempt; the seconds that those who got one have waited.

    Who is locked by another transaction is left to the next pass.
    """
    waited: list[float] = []
    query = select(Job).where(Job.id.in_(ids), _ready(now)).with_for_update(skip_locked=True)
    found = {job.id: job for job in await session.scalars(query)}
    for job in (found[one] for one in ids if one in found):
        number = job.attempt + 1
        gpus = job.workers * job.gpus_per_worker
        since = job.requeued_at or job.created_at
        values: dict[str, Any] = {"attempt": number, "not_before": None, "look_at": jobs.AT_ONCE}
        if await jobs.advance(session, job, Status.STARTING, Reason.DISPATCHED, now, **values):
            await attempts.create(session, job.id, number, now, gpus=gpus)
            waited.append((now - since).total_seconds())
            log.info("queue.admitted", job_id=job.id, attempt=number)
    return waited


async def _ask_for_room(session: AsyncSession, ids: Sequence[str], now: datetime) -> None:
    """Have the running attempts of these jobs save and stop: the answer to their next report says so."""
    query = select(Job, Attempt).join(Attempt, (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt))
    query = query.where(Job.id.in_(ids), Job.status.in_(MOVABLE), Attempt.asked_at.is_(None))
    for job, attempt in (await session.execute(query.with_for_update(of=Job, skip_locked=True))).tuples().all():
        asked = {"asked_at": now, "asked_reason": Reason.PREEMPTED}
        await session.execute(update(Attempt).where(Attempt.id == attempt.id).values(**asked))
        await session.execute(update(Job).where(Job.id == job.id).values(look_at=jobs.AT_ONCE))
        message = f"Attempt {attempt.number} was asked to save and make room for a job of higher priority."
        data = {"attempt": attempt.number}
        await events.emit(session, job.id, "attempt", message, now, reason=Reason.PREEMPTED, data=data)
        log.info("queue.preempted", job_id=job.id, attempt=attempt.number)
