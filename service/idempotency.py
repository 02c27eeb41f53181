"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): a create that is repeated is answered, not repeated.

The key is reserved in the transaction that creates, so both are stored or neither; a second request with the same key
waits for the first one's transaction and then finds its answer.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import insert_once
from service.errors import IdempotencyMismatch
from service.tables import IdempotentRequest

KEEP = timedelta(hours=24)


async def reserve(session: AsyncSession, project_id: str, key: str, request_sha256: str, now: datetime) -> Any | None:
    """Take the key, or return the answer that its first use got. IdempotencyMismatch when that was another request."""
    await session.execute(delete(IdempotentRequest).where(IdempotentRequest.created_at < now - KEEP))
    row = {"project_id": project_id, "key": key, "request_sha256": request_sha256, "created_at": now}
    await insert_once(session, IdempotentRequest, [row], ["project_id", "key"])
    mine = select(IdempotentRequest).where(IdempotentRequest.project_id == project_id, IdempotentRequest.key == key)
    stored = (await session.execute(mine)).scalar_one()
    if stored.request_sha256 != request_sha256:
        raise IdempotencyMismatch("This Idempotency-Key came with another request before; use a new key for a new one.")
    return stored.answer


async def remember(session: AsyncSession, project_id: str, key: str, answer: Any) -> None:
    """Keep the answer for repeats, in the transaction that reserved the key."""
    mine = (IdempotentRequest.project_id == project_id) & (IdempotentRequest.key == key)
    await session.execute(update(IdempotentRequest).where(mine).values(answer=answer))
