"""Attempts: one try at running a job on the cluster each, and the observations that come from it."""

import hmac
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service import events, jobs, observations, students
from service.db import insert_once
from service.errors import AttemptFenced, Conflict, NotFound, Unauthorized
from service.ids import is_id, new_id
from service.master_keys import derive, master_key
from service.observations import Observation, Report, ReportAnswer
from service.status import REASONS, Reason, Wish
from service.tables import Attempt, Checkpoint, Job, Log, Metric, Outcome, Sample

CLOCK_SECONDS = 120.0
"""How far the clock of a job's machine may be off before the log says so."""

log = structlog.get_logger(__name__)


async def create(session: AsyncSession, job_id: str, number: int, now: datetime, gpus: float = 0.0) -> Attempt:
    """Write an attempt that `gpus` are promised to. Its Ray submission id follows from the job and the number alone."""
    attempt = Attempt(
        id=new_id("att"),
        job_id=job_id,
        number=number,
        submission_id=f"{job_id}-a{number}".replace("_", "-"),
        gpus=gpus,
        created_at=now,
    )
    session.add(attempt)
    await session.flush()
    await events.emit(session, job_id, "attempt", f"Attempt {number} was made.", now, data={"attempt": number})
    return attempt


async def current(session: AsyncSession, job: Job) -> Attempt | None:
    """The job's newest attempt."""
    query = select(Attempt).where(Attempt.job_id == job.id, Attempt.number == job.attempt)
    return await session.scalar(query.execution_options(populate_existing=True))


async def newest(session: AsyncSession, job_ids: Sequence[str]) -> dict[str, Attempt]:
    """The newest attempt of each of these jobs that has one, by the job's id."""
    query = select(Attempt).join(Job, (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt))
    found = await session.scalars(query.where(Job.id.in_(job_ids)).execution_options(populate_existing=True))
    return {attempt.job_id: attempt for attempt in found}


async def mark(session: AsyncSession, attempt: Attempt, lease: str, **values: Any) -> bool:
    """Write what the reconciler did about an attempt; not if its job's lease is lost, or if it is over: False."""
    if not await jobs.lock(session, attempt.job_id, lease):
        return False
    marked = update(Attempt).where(Attempt.id == attempt.id, Attempt.ended_at.is_(None)).values(**values)
    return (await session.execute(marked.returning(Attempt.id))).scalar_one_or_none() is not None


async def end(session: AsyncSession, attempt: Attempt, reason: Reason, detail: str, now: datetime) -> None:
    """Close an attempt: from here on it is fenced. One that is closed already stays as it is."""
    closed = (
        update(Attempt)
        .where(Attempt.id == attempt.id, Attempt.ended_at.is_(None))
        .values(ended_at=now, reason=reason, detail=detail or None)
        .returning(Attempt.id)
    )
    if (await session.execute(closed)).scalar_one_or_none() is not None:
        message = f"Attempt {attempt.number} ended: {REASONS[reason]}"
        await events.emit(
            session, attempt.job_id, "attempt", message, now, reason=reason, data={"attempt": attempt.number}
        )


async def signing_key(session: AsyncSession) -> bytes:
    """The secret that attempt tokens are derived from; made once, shared by all processes through the database."""
    return await master_key(session, "attempt_tokens")


def token(key: bytes, attempt_id: str) -> str:
    """The attempt's token. Derived, so that a dispatch repeated after a crash sends the same one."""
    return derive(key, attempt_id).hex()


def check_token(key: bytes, attempt_id: str, given: str) -> None:
    """Unauthorized unless `given` is this attempt's token."""
    if not hmac.compare_digest(token(key, attempt_id).encode(), given.encode()):
        raise Unauthorized("The attempt token is wrong; it is in FEWSTEP_ATTEMPT_TOKEN of the attempt's own driver.")


async def _locked(session: AsyncSession, attempt_id: str) -> tuple[Attempt, Job]:
    attempt = await session.get(Attempt, attempt_id) if is_id(attempt_id, "att") else None
    if attempt is None:
        raise NotFound("There is no such attempt.")
    job = (await session.execute(select(Job).where(Job.id == attempt.job_id).with_for_update())).scalar_one()
    await session.refresh(attempt, with_for_update=True)
    return attempt, job


def _check_current(attempt: Attempt, job: Job) -> None:
    if attempt.ended_at is not None or attempt.number != job.attempt:
        raise AttemptFenced(f"Attempt {attempt.number} is over; the job no longer listens to it.")


def wish(attempt: Attempt, job: Job) -> Wish:
    """What the attempt is to do: what the user wants, or else to pause where the platform asked it to stop."""
    return Wish.PAUSE if job.wish is Wish.RUN and attempt.asked_reason is not None else job.wish


async def order(session: AsyncSession, attempt_id: str) -> tuple[Attempt, Job]:
    """The attempt and its job, for the process that is about to run it. AttemptFenced when it must not.

    Who asks becomes the attempt's writer: from here on, reports of those who asked before are refused.
    """
    attempt, job = await _locked(session, attempt_id)
    _check_current(attempt, job)
    attempt.writer += 1
    return attempt, job


async def report(session: AsyncSession, attempt_id: str, report: Report, now: datetime) -> ReportAnswer:
    """Store what is new in a report, all of it or nothing.

    Numbers up to `acknowledged` were stored before and are skipped, so a report may be repeated; a gap is refused
    (Conflict), as is anything new from an attempt that is no longer the job's current one (AttemptFenced).
    """
    attempt, job = await _locked(session, attempt_id)
    new = [seen for seen in report.observations if seen.seq > attempt.acknowledged]
    if report.observations and not new:
        return ReportAnswer(acknowledged=attempt.acknowledged, wish=wish(attempt, job))
    _check_current(attempt, job)
    if report.writer is not None and report.writer != attempt.writer:
        raise AttemptFenced(f"Writer {attempt.writer} reports for this attempt by now; writer {report.writer} is late.")
    for expected, seen in enumerate(new, start=attempt.acknowledged + 1):
        if seen.seq != expected:
            raise Conflict(f"Observation {seen.seq} came where {expected} was due; send from {expected} on again.")
    if new and attempt.acknowledged == 0:
        _check_clock(attempt, new[-1], now)
    acknowledged = attempt.acknowledged + len(new)
    words = _own_words(new)
    values = {"acknowledged": acknowledged, "last_report_at": now, **words}
    if _progressed(new, words.get("phase", attempt.phase)):
        values["progressed_at"] = now
    await session.execute(update(Attempt).where(Attempt.id == attempt_id).values(**values))
    await _store(session, job, attempt, new, now)
    if words:
        await session.execute(update(Job).where(Job.id == job.id).values(look_at=jobs.AT_ONCE, updated_at=now))
    return ReportAnswer(acknowledged=acknowledged, wish=wish(attempt, job))


def _progressed(new: Sequence[Observation], phase: str | None) -> bool:
    """Whether a report shows more than that the process lives. Judging and exporting say nothing for minutes."""
    said = any(not isinstance(seen, observations.LogLine) for seen in new)
    return said or phase in ("evaluating", "exporting")


def _check_clock(attempt: Attempt, seen: Observation, now: datetime) -> None:
    """Say that the job's machine has another time. Its figures carry that time; no decision is made by it."""
    ahead = seen.at - now.timestamp()
    if abs(ahead) > CLOCK_SECONDS:
        about = {"job_id": attempt.job_id, "attempt_id": attempt.id, "seconds_ahead": round(ahead)}
        log.warning("reports.wrong_clock", **about)


def _own_words(new: Sequence[Observation]) -> dict[str, Any]:
    """What the attempt says of itself: its phase, and its end."""
    values: dict[str, Any] = {}
    for seen in new:
        match seen:
            case observations.Phase():
                values["phase"] = seen.phase
            case observations.Done():
                values["outcome"] = Outcome.DONE
            case observations.Stopped():
                values["outcome"] = Outcome.STOPPED
            case observations.Failure():
                values |= {"outcome": Outcome.FAILED, "outcome_reason": seen.reason}
                values["outcome_detail"] = _text(seen.message)
    return values


async def _store(session: AsyncSession, job: Job, attempt: Attempt, new: Sequence[Observation], now: datetime) -> None:
    metrics: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    checkpoints: list[dict[str, Any]] = []
    logs: list[dict[str, Any]] = []
    for seen in new:
        row: dict[str, Any] = {"job_id": job.id, "at": datetime.fromtimestamp(seen.at, UTC)}
        match seen:
            case observations.Metrics():
                values = {_text(name): _finite(value) for name, value in seen.values.items()}
                metrics.append({**row, "step": seen.step, "stage": seen.stage, "values": values})
            case observations.Sample():
                fields = seen.model_dump(include={"step", "stage", "role", "sampling_steps", "path"})
                samples.append({**row, "id": new_id("smp"), **fields})
            case observations.CheckpointSaved():
                row |= {"attempt": attempt.number, **seen.model_dump(include={"step", "path", "bytes"})}
                checkpoints.append(row)
            case observations.LogLine():
                row |= {"seq": job.last_log + len(logs) + 1, "attempt": attempt.number}
                logs.append({**row, "level": seen.level, "rank": seen.rank, "message": _text(seen.message)})
            case observations.StudentExported():
                await students.store(session, job, seen, now)
    await insert_once(session, Metric, metrics, unique=["job_id", "step"])
    places = ["job_id", "role", "stage", "step", "sampling_steps"]
    await insert_once(session, Sample, samples, unique=places)
    await insert_once(session, Checkpoint, checkpoints, ["job_id", "step"], update=["at", "attempt", "path", "bytes"])
    await insert_once(session, Log, logs, unique=["job_id", "seq"])
    counters = {"last_log": job.last_log + len(logs)}
    counters["step"] = max([job.step, *(row["step"] for row in metrics)])
    if counters != {"last_log": job.last_log, "step": job.step}:
        await session.execute(update(Job).where(Job.id == job.id).values(**counters, updated_at=now))


def _text(text: str) -> str:
    """Without NUL, which PostgreSQL cannot store."""
    return text.replace("\0", "�")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
