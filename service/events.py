"""A job's events and log lines: append-only, numbered within the job, read by number."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service import outbox
from service.db import NewRow, insert_together
from service.status import Reason, Status
from service.tables import Event, Job, Log


async def emit(
    session: AsyncSession,
    job_id: str,
    type: str,
    message: str,
    now: datetime,
    *,
    status: Status | None = None,
    reason: Reason | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Append an event in the caller's transaction. Taking the number locks the job's row, so numbers have no gaps."""
    numbered = update(Job).where(Job.id == job_id).values(last_event=Job.last_event + 1).returning(Job.last_event)
    seq = (await session.execute(numbered)).scalar_one()
    await append(session, job_id, seq, type, message, now, status=status, reason=reason, data=data)


async def append(
    session: AsyncSession,
    job_id: str,
    seq: int,
    type: str,
    message: str,
    now: datetime,
    *,
    status: Status | None = None,
    reason: Reason | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Append an event, and its deliveries, under a number that the caller took from the job's row."""
    table, event = row(job_id, seq, type, message, now, status=status, reason=reason, data=data)
    await insert_together(session, [(table, event), *await outbox.announced(session, event)])


def row(
    job_id: str,
    seq: int,
    type: str,
    message: str,
    now: datetime,
    *,
    status: Status | None = None,
    reason: Reason | None = None,
    data: dict[str, Any] | None = None,
) -> NewRow:
    """An event that is not stored yet."""
    values = {"job_id": job_id, "seq": seq, "at": now, "type": type, "status": status, "reason": reason}
    return Event, {**values, "message": message, "data": data or {}}


async def events_after(session: AsyncSession, job_id: str, seq: int, limit: int) -> Sequence[Event]:
    """At most `limit` events with greater numbers, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    return (await session.scalars(query)).all()


async def logs_after(session: AsyncSession, job_id: str, seq: int, limit: int) -> Sequence[Log]:
    """At most `limit` log lines with greater numbers, in order."""
    query = select(Log).where(Log.job_id == job_id, Log.seq > seq).order_by(Log.seq).limit(limit)
    return (await session.scalars(query)).all()
