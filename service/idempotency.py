"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): a create that is repeated is answered, not repeated.

The answer is stored in the transaction that creates, so both are there or neither. While that transaction is open,
PostgreSQL holds a lock on the key, and a second request with it is told to come back (409). SQLite serves one process,
whose writers queue: there the second request waits its turn and finds the answer, so it never meets the first.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, literal_column, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import TRY_LOCK, Database, NewRow, is_duplicate, lock_number
from service.errors import IdempotencyMismatch, InProgress
from service.tables import IdempotentRequest

KEEP = timedelta(hours=24)
IN_PROGRESS = "The first request with this Idempotency-Key is being answered right now; send it again."


def _question(free: ColumnElement[bool]) -> Select[Any]:
    one = select(literal_column("1").label("one")).subquery()
    mine = IdempotentRequest.project_id == bindparam("project_id"), IdempotentRequest.key == bindparam("key")
    known = (IdempotentRequest.request_sha256, IdempotentRequest.answer, IdempotentRequest.created_at)
    return select(free.label("free"), *known).select_from(one).outerjoin(IdempotentRequest, and_(*mine))


_QUESTIONS = {True: _question(literal_column("1")), False: _question(TRY_LOCK)}
"""By whether SQLite is asked."""


async def claim(
    db: Database, session: AsyncSession, project_id: str, key: str, request_sha256: str, now: datetime
) -> Any | None:
    """Take the key until the transaction ends, or return the answer that its first use got.

    IdempotencyMismatch when that was another request; InProgress while its first use is not over.
    """
    asked = {"project_id": project_id, "key": key, "lock": lock_number(f"idempotency {project_id} {key}")}
    connection = await session.connection()
    found = (await connection.execute(_QUESTIONS[db.is_sqlite], asked)).one()
    if not found.free:
        raise InProgress(IN_PROGRESS)
    if found.created_at is None:
        return None
    if found.created_at < now - KEEP:  # the key was used before, longer ago than answers are kept
        mine = (IdempotentRequest.project_id == project_id) & (IdempotentRequest.key == key)
        await connection.execute(delete(IdempotentRequest).where(mine))
        return None
    if found.request_sha256 != request_sha256:
        raise IdempotencyMismatch("This Idempotency-Key came with another request before; use a new key for a new one.")
    return found.answer


def row(project_id: str, key: str, request_sha256: str, answer: Any, now: datetime) -> NewRow:
    """The answer, for repeats: to be stored in the transaction that claimed the key.

    PostgreSQL looks for an answer before it takes the lock, so a first use that ends between the two is found out only
    here: the row is a duplicate, and `is_taken`.
    """
    kept = {"project_id": project_id, "key": key, "request_sha256": request_sha256}
    return IdempotentRequest, {**kept, "answer": answer, "created_at": now}


def is_taken(error: IntegrityError) -> bool:
    """Whether a transaction failed because another one used its key a moment earlier."""
    return is_duplicate(error, IdempotentRequest)


async def forget(session: AsyncSession, now: datetime) -> None:
    """Drop the answers that are kept long enough."""
    await session.execute(delete(IdempotentRequest).where(IdempotentRequest.created_at < now - KEEP))
