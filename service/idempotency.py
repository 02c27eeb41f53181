"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): a create that is repeated is answered, not repeated.

The answer is stored in the transaction that creates, so both are there or neither. While that transaction is open,
PostgreSQL holds a lock on the key, and a second request with it is told to come back (409). SQLite serves one process,
whose writers queue: there the second request waits its turn and finds the answer, so it never meets the first.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import Database, insert_once
from service.errors import IdempotencyMismatch, InProgress
from service.tables import IdempotentRequest

KEEP = timedelta(hours=24)


_STORED = select(IdempotentRequest.request_sha256, IdempotentRequest.answer).where(
    IdempotentRequest.project_id == bindparam("project_id"),
    IdempotentRequest.key == bindparam("key"),
    IdempotentRequest.created_at >= bindparam("since"),
)


async def claim(
    db: Database, session: AsyncSession, project_id: str, key: str, request_sha256: str, now: datetime
) -> Any | None:
    """Take the key until the transaction ends, or return the answer that its first use got.

    IdempotencyMismatch when that was another request; InProgress while its first use is not over.
    """
    if not await db.try_exclusive(session, f"idempotency {project_id} {key}"):
        raise InProgress("The first request with this Idempotency-Key is being answered right now; send it again.")
    asked = {"project_id": project_id, "key": key, "since": now - KEEP}
    stored = (await (await session.connection()).execute(_STORED, asked)).one_or_none()
    if stored is None:
        return None
    if stored.request_sha256 != request_sha256:
        raise IdempotencyMismatch("This Idempotency-Key came with another request before; use a new key for a new one.")
    return stored.answer


async def remember(
    session: AsyncSession, project_id: str, key: str, request_sha256: str, answer: Any, now: datetime
) -> None:
    """Keep the answer for repeats, in the transaction that claimed the key."""
    row = {"project_id": project_id, "key": key, "request_sha256": request_sha256, "answer": answer, "created_at": now}
    again = ["request_sha256", "answer", "created_at"]  # the key was used before, longer ago than answers are kept
    await insert_once(session, IdempotentRequest, [row], ["project_id", "key"], update=again)


async def forget(session: AsyncSession, now: datetime) -> None:
    """Drop the answers that are kept long enough."""
    await session.execute(delete(IdempotentRequest).where(IdempotentRequest.created_at < now - KEEP))
