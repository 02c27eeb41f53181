"""Attempts: one try at running a job on the cluster each, and the observations that come from it."""

import hashlib
import hmac
import math
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service import events, observations, students
from service.db import insert_once
from service.errors import AttemptFenced, Conflict, NotFound, Unauthorized
from service.ids import is_id, new_id
from service.observations import Observation, Report, ReportAnswer
from service.status import REASONS, Reason
from service.tables import Attempt, Checkpoint, Job, Log, Metric, Outcome, Sample, Secret


async def create(session: AsyncSession, job_id: str, number: int, now: datetime) -> Attempt:
    """Write an attempt. Its Ray submission id follows from the job and the number alone."""
    attempt = Attempt(
        id=new_id("att"),
        job_id=job_id,
        number=number,
        submission_id=f"{job_id}-a{number}".replace("_", "-"),
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
    row = {"name": "attempt_tokens", "value": secrets.token_hex(32)}
    await insert_once(session, Secret, [row], unique=["name"])
    value = (await session.execute(select(Secret.value).where(Secret.name == row["name"]))).scalar_one()
    return bytes.fromhex(value)


def token(key: bytes, attempt_id: str) -> str:
    """The attempt's token. Derived, so that a dispatch repeated after a crash sends the same one."""
    return hmac.new(key, attempt_id.encode(), hashlib.sha256).hexdigest()


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


async def order(session: AsyncSession, attempt_id: str) -> tuple[Attempt, Job]:
    """The attempt and its job, for the driver that is about to run it. AttemptFenced when it must not."""
    attempt, job = await _locked(session, attempt_id)
    _check_current(attempt, job)
    return attempt, job


async def report(session: AsyncSession, attempt_id: str, report: Report, now: datetime) -> ReportAnswer:
    """Store what is new in a report, all of it or nothing.

    Numbers up to `acknowledged` were stored before and are skipped, so a report may be repeated; a gap is refused
    (Conflict), as is anything new from an attempt that is no longer the job's current one (AttemptFenced).
    """
    attempt, job = await _locked(session, attempt_id)
    new = [seen for seen in report.observations if seen.seq > attempt.acknowledged]
    if report.observations and not new:
        return ReportAnswer(acknowledged=attempt.acknowledged, wish=job.wish)
    _check_current(attempt, job)
    for expected, seen in enumerate(new, start=attempt.acknowledged + 1):
        if seen.seq != expected:
            raise Conflict(f"Observation {seen.seq} came where {expected} was due; send from {expected} on again.")
    acknowledged = attempt.acknowledged + len(new)
    values = {"acknowledged": acknowledged, "last_report_at": now, **_own_words(new)}
    await session.execute(update(Attempt).where(Attempt.id == attempt_id).values(**values))
    await _store(session, job, attempt, new, now)
    return ReportAnswer(acknowledged=acknowledged, wish=job.wish)


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
