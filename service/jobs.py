"""Jobs: finding, wishing, and the one door through which a status changes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service import events
from service.errors import Conflict, NotFound
from service.ids import is_id
from service.status import ACTIVE, REASONS, TERMINAL, TRANSITIONS, Reason, Status, Wish
from service.tables import Attempt, Checkpoint, Job, JobMethod, Metric, Sample

FOLDER = "jobs"
"""The store's folder in which each job has its own, by id."""
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""`look_at` of a job that the reconciler has to look at before all others."""


async def get(session: AsyncSession, project_id: str, job_id: str, *, lock: bool = False) -> Job:
    """The project's job; with `lock` its row is this transaction's until it ends. NotFound."""
    query = select(Job).where(Job.id == job_id, Job.project_id == project_id)
    query = query.execution_options(populate_existing=True)
    job = await session.scalar(query.with_for_update() if lock else query) if is_id(job_id, "job") else None
    if job is None:
        raise NotFound("There is no such job; GET /v1/jobs lists them.")
    return job


async def left_by_others(session: AsyncSession, project_id: str, path: str) -> bool:
    """Whether `path` of the store is what jobs of other projects left: to this project, it is not there."""
    top, *rest = PurePosixPath(path).parts or (".",)
    if top != FOLDER:
        return False
    job_id = rest[0] if rest and is_id(rest[0], "job") else ""
    return await session.scalar(select(Job.project_id).where(Job.id == job_id)) != project_id


async def load(session: AsyncSession, job_id: str) -> Job:
    """A job by an id that the database gave, of whatever project."""
    query = select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    return (await session.execute(query)).scalar_one()


async def advance(
    session: AsyncSession,
    job: Job,
    to: Status,
    reason: Reason,
    now: datetime,
    *,
    detail: str = "",
    lease: str | None = None,
    **values: Any,
) -> bool:
    """The one door for a status: move `job`, as the caller saw it, to `to`, and write the event with it.

    Moves nothing and answers False when the row is no longer in the status and attempt that the caller saw, or is not
    leased any more with the token `lease`, where one is given.
    A move that `TRANSITIONS` does not know is a bug: ValueError.
    """
    if to not in TRANSITIONS[job.status]:
        raise ValueError(f"{job.status} -> {to} is not a move that a job can make")
    # Taken before the update, which changes a job that is the session's own.
    data = {"from": job.status.value, **({"detail": detail} if detail else {})}
    values["finished_at"] = now if to in TERMINAL else None
    if to is Status.QUEUED:
        values["requeued_at"] = now
    moved = (
        update(Job)
        .where(Job.id == job.id, Job.status == job.status, Job.attempt == job.attempt)
        .values(status=to, reason=reason, detail=detail, updated_at=now, last_event=Job.last_event + 1, **values)
        .returning(Job.last_event)
    )
    if lease is not None:
        moved = moved.where(Job.lease_token == lease)
    seq = (await session.execute(moved)).scalar_one_or_none()
    if seq is None:
        return False
    found_by = (JobMethod.project_id == job.project_id) & JobMethod.kind.in_(job.methods.split())
    await session.execute(update(JobMethod).where(found_by, JobMethod.job_id == job.id).values(status=to))
    await events.append(session, job.id, seq, "status", REASONS[reason], now, status=to, reason=reason, data=data)
    return True


async def wish(session: AsyncSession, project_id: str, job_id: str, wanted: Wish, now: datetime) -> Job:
    """Write down that the user wants the job to run, pause or be cancelled. Conflict when it cannot be."""
    job = await get(session, project_id, job_id, lock=True)
    if (refusal := _refusal(job, wanted)) is not None:
        raise Conflict(refusal)
    if job.wish != wanted:
        message = {
            Wish.CANCEL: "Cancelling was asked for.",
            Wish.PAUSE: "A pause was asked for.",
            Wish.RUN: "Going on was asked for.",
        }[wanted]
        values = {"wish": wanted, "wished_at": now, "updated_at": now, "look_at": AT_ONCE}
        await session.execute(update(Job).where(Job.id == job_id).values(**values))
        await events.emit(session, job_id, "wish", message, now, data={"wish": wanted.value})
    return await load(session, job_id)


def _refusal(job: Job, wanted: Wish) -> str | None:
    """Why the job cannot be asked for this, in a sentence, or None."""
    if job.status in TERMINAL:
        hint = "" if job.status is Status.SUCCEEDED else "; retry starts it again from its last checkpoint"
        return f"The job is already over ({job.status}){hint}."
    match wanted:
        case Wish.PAUSE if job.wish is Wish.CANCEL:
            return "The job is being cancelled; retry it when it is, instead of pausing."
        case Wish.PAUSE if job.status is Status.FINISHING:
            return "The job has trained and is being judged; it can be cancelled, but a pause would save nothing."
        case Wish.RUN if job.wish is Wish.CANCEL:
            return "The job is being cancelled; retry it when it is."
        case Wish.RUN if job.wish is Wish.RUN and job.status is not Status.PAUSED:
            return f"The job is not paused, it is {job.status}."
    return None


async def retry(session: AsyncSession, project_id: str, job_id: str, now: datetime) -> Job:
    """Ask for a failed or cancelled job to be queued again; it goes on from its last checkpoint. Conflict."""
    job = await get(session, project_id, job_id, lock=True)
    if job.status not in (Status.FAILED, Status.CANCELLED):
        raise Conflict(f"Only a failed or cancelled job can be retried; this one is {job.status}.")
    if job.retries_asked == job.retries_done:
        values = {"wish": Wish.RUN, "wished_at": now, "updated_at": now, "look_at": AT_ONCE}
        values["retries_asked"] = job.retries_asked + 1
        await session.execute(update(Job).where(Job.id == job_id).values(**values))
        await events.emit(session, job_id, "wish", "A retry was asked for.", now, data={"wish": Wish.RUN.value})
    return await load(session, job_id)


async def lock(session: AsyncSession, job_id: str, lease: str) -> bool:
    """Make the job's row this transaction's until it ends. False when it is not leased with this token any more."""
    query = select(Job.id).where(Job.id == job_id, Job.lease_token == lease).with_for_update()
    return await session.scalar(query) is not None


async def count_active(session: AsyncSession) -> int:
    """Jobs that hold a place on the cluster."""
    return (await session.execute(select(func.count()).where(Job.status.in_(ACTIVE)))).scalar_one()


async def count_by_status(session: AsyncSession) -> dict[Status, int]:
    rows = await session.execute(select(Job.status, func.count()).group_by(Job.status))
    return {status: count for status, count in rows.tuples()}


async def attempts(session: AsyncSession, job_id: str) -> Sequence[Attempt]:
    return (await session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number))).all()


async def metrics(session: AsyncSession, job_id: str, after: int, limit: int) -> Sequence[Metric]:
    """Figures of the steps above `after`, in order; up to `limit` + 1."""
    query = select(Metric).where(Metric.job_id == job_id, Metric.step > after).order_by(Metric.step).limit(limit + 1)
    return (await session.scalars(query)).all()


async def samples(session: AsyncSession, job_id: str) -> Sequence[Sample]:
    """Preview grids by step, the teacher's first."""
    query = select(Sample).where(Sample.job_id == job_id)
    return (await session.scalars(query.order_by(Sample.step, Sample.role.desc(), Sample.sampling_steps))).all()


async def sample(session: AsyncSession, job_id: str, sample_id: str) -> Sample:
    found = await session.get(Sample, sample_id) if is_id(sample_id, "smp") else None
    if found is None or found.job_id != job_id:
        raise NotFound("The job has no such sample; GET /v1/jobs/{id}/samples lists them.")
    return found


async def checkpoints(session: AsyncSession, job_id: str) -> Sequence[Checkpoint]:
    return (
        await session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step))
    ).all()
