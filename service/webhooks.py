"""Webhooks: who wants to hear of which events, and how each delivery to them is signed (Standard Webhooks)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.errors import Conflict, NotFound
from service.ids import is_id, new_id
from service.master_keys import derive, master_key
from service.tables import Delivery, DeliveryStatus, Webhook

MAX_WEBHOOKS = 20
"""Of one project."""

TEST = "webhook.test"
"""The type of deliveries that nothing but a test call makes."""


class EventType(StrEnum):
    """What a webhook can ask for."""

    QUEUED = "job.queued"
    STARTING = "job.starting"
    RUNNING = "job.running"
    FINISHING = "job.finishing"
    PAUSED = "job.paused"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"
    STUDENT = "job.student"


async def create(
    session: AsyncSession, project_id: str, url: str, events: Sequence[EventType], now: datetime
) -> Webhook:
    """A webhook for a URL that was checked; no events means all. Conflict when the project has too many."""
    mine = (Webhook.project_id == project_id) & Webhook.deleted_at.is_(None)
    count = (await session.execute(select(func.count()).select_from(Webhook).where(mine))).scalar_one()
    if count >= MAX_WEBHOOKS:
        raise Conflict(f"The project has {count} webhooks and may have {MAX_WEBHOOKS}; delete one first.")
    wanted = list(dict.fromkeys(event.value for event in events))
    webhook = Webhook(id=new_id("whk"), project_id=project_id, url=url, events=wanted, created_at=now)
    session.add(webhook)
    await session.flush()
    return webhook


async def get(session: AsyncSession, project_id: str, webhook_id: str) -> Webhook:
    """NotFound."""
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
    found = await session.scalar(query.where(Webhook.deleted_at.is_(None))) if is_id(webhook_id, "whk") else None
    if found is None:
        raise NotFound("There is no such webhook; GET /v1/webhooks lists them.")
    return found


async def page(session: AsyncSession, project_id: str, *, limit: int, after: str | None = None) -> Sequence[Webhook]:
    """The newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(Webhook).where(Webhook.project_id == project_id, Webhook.deleted_at.is_(None))
    if after is not None:
        query = query.where(Webhook.id < after)
    return (await session.scalars(query.order_by(Webhook.id.desc()).limit(limit + 1))).all()


async def delete(session: AsyncSession, project_id: str, webhook_id: str, now: datetime) -> Webhook:
    """From here on nothing is sent to it, not even what was waiting to be tried again. NotFound."""
    webhook = await get(session, project_id, webhook_id)
    await session.execute(update(Webhook).where(Webhook.id == webhook.id).values(deleted_at=now))
    over: dict[str, Any] = {"status": DeliveryStatus.DEAD, "due_at": None, "last_error": "The webhook was deleted."}
    waiting = (Delivery.webhook_id == webhook.id) & Delivery.due_at.is_not(None)
    await session.execute(update(Delivery).where(waiting).values(lease_token=None, lease_expires_at=None, **over))
    return webhook


async def signing_key(session: AsyncSession) -> bytes:
    """What every webhook's own secret is derived from; made once, in a transaction that writes."""
    return await master_key(session, "webhook_secrets")


def secret(key: bytes, webhook_id: str) -> str:
    """The webhook's secret as Standard Webhooks write it: `whsec_` and 32 bytes in base64."""
    return "whsec_" + base64.b64encode(derive(key, webhook_id)).decode()


def body(delivery: Delivery) -> bytes:
    """What is sent, byte for byte the same at every try."""
    return json.dumps(delivery.payload, separators=(",", ":")).encode()


def headers(key: bytes, delivery: Delivery, now: datetime) -> dict[str, str]:
    """Id, Unix time in seconds, and the HMAC-SHA256 of "id.time.body" under the webhook's secret."""
    timestamp = str(int(now.timestamp()))
    signed = f"{delivery.id}.{timestamp}.".encode() + body(delivery)
    mac = hmac.new(derive(key, delivery.webhook_id), signed, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"webhook-id": delivery.id, "webhook-timestamp": timestamp, "webhook-signature": signature}
