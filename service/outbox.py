"""The outbox: a row for each event and each webhook that wants it, kept until a receiver took it or every try failed.

Rows are written in the event's own transaction. Senders claim them with leases, so several may run, and one that dies
between sending and marking leaves a row that is sent again with the same id: at least once, in no promised order.
"""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service import webhooks
from service.db import NewRow
from service.errors import Conflict, NotFound
from service.ids import is_id, new_id
from service.status import Reason, Status
from service.tables import Delivery, DeliveryStatus, Job, Webhook

AT_ONCE = 4
"""Deliveries on their way to one webhook at a time."""

ANNOUNCED = ("status", "student")
"""The types of events that webhooks hear of."""

LEASE = timedelta(seconds=30)
"""How long a sender may hold a delivery; one try takes a third of it at most."""

RETRIES = (5.0, 30.0, 120.0, 600.0, 3_600.0, 10_800.0, 43_200.0)
"""Seconds from each failed try to the next, give or take a fifth; after one more failure the delivery is dead."""


@dataclass(frozen=True)
class Claim:
    """A delivery that one sender holds until its lease ends."""

    delivery: Delivery
    url: str
    token: str


@dataclass(frozen=True)
class Listener:
    """A webhook, and the events that it wants; none means all."""

    webhook_id: str
    events: list[str]


_LISTENING = (
    select(Webhook.id, Webhook.events, Job.name, Job.status, Job.reason)
    .join(Job, Job.project_id == Webhook.project_id)
    .where(Job.id == bindparam("job_id"), Webhook.deleted_at.is_(None))
)


async def announced(session: AsyncSession, event: dict[str, Any]) -> list[NewRow]:
    """The deliveries of a job's event, to be stored with it.

    Where the project has no webhook this costs one look into an index.
    """
    if event["type"] not in ANNOUNCED:
        return []
    connection = await session.connection()
    found = (await connection.execute(_LISTENING, {"job_id": event["job_id"]})).all()
    if not found:
        return []
    listeners = [Listener(row.id, row.events) for row in found]
    return rows(listeners, event, found[0].name, found[0].status, found[0].reason)


def rows(
    listeners: Sequence[Listener], event: dict[str, Any], name: str | None, status: Status, reason: Reason
) -> list[NewRow]:
    """The deliveries of an event of the job called `name`, which is in `status` for this `reason`."""
    kind = f"job.{event['status'].value if event['status'] is not None else event['type']}"
    told: dict[str, Any] = {"job": event["job_id"], "name": name}
    told |= {"status": event["status"] or status, "reason": event["reason"] or reason}
    told |= {"detail": _sentence(event["message"], event["data"].get("detail", "")), "sequence": event["seq"]}
    told |= {"student": event["data"]} if event["type"] == "student" else {}
    wanting = [one.webhook_id for one in listeners if not one.events or kind in one.events]
    return [(Delivery, _row(webhook_id, kind, told, event["at"])) for webhook_id in wanting]


async def send_test(session: AsyncSession, project_id: str, webhook_id: str, now: datetime) -> Delivery:
    """Send something harmless, to see that the receiver is there and takes the signature. NotFound."""
    webhook = await webhooks.get(session, project_id, webhook_id)
    row = _row(webhook.id, webhooks.TEST, {"webhook": webhook.id}, now)
    await session.execute(insert(Delivery), [row])
    return await _get(session, webhook, row["id"])


async def page(
    session: AsyncSession,
    project_id: str,
    webhook_id: str,
    *,
    limit: int,
    after: str | None = None,
    status: DeliveryStatus | None = None,
) -> Sequence[Delivery]:
    """A webhook's deliveries, the newest first, starting below the id `after`; up to `limit` + 1. NotFound."""
    webhook = await webhooks.get(session, project_id, webhook_id)
    query = select(Delivery).where(Delivery.webhook_id == webhook.id)
    if status is not None:
        query = query.where(Delivery.status == status)
    if after is not None:
        query = query.where(Delivery.id < after)
    return (await session.scalars(query.order_by(Delivery.id.desc()).limit(limit + 1))).all()


async def replay(session: AsyncSession, project_id: str, webhook_id: str, delivery_id: str, now: datetime) -> Delivery:
    """Send a delivery again, with its id and all its tries. NotFound; Conflict while it is still being tried."""
    webhook = await webhooks.get(session, project_id, webhook_id)
    delivery = await _get(session, webhook, delivery_id)
    again: dict[str, Any] = {"status": DeliveryStatus.PENDING, "attempts": 0, "due_at": now, "delivered_at": None}
    over = (Delivery.id == delivery.id) & Delivery.due_at.is_(None)
    if (await session.execute(update(Delivery).where(over).values(**again).returning(Delivery.id))).first() is None:
        raise Conflict("The delivery is still being tried; it can be replayed once it was delivered or is dead.")
    return await _get(session, webhook, delivery_id)


async def due(session: AsyncSession, now: datetime) -> list[tuple[str, str, int]]:
    """(id, URL, free places) of each webhook that something is due for, shuffled, so that none always comes last."""
    mine = Delivery.webhook_id == Webhook.id
    held = select(func.count()).where(mine, Delivery.due_at <= now, Delivery.lease_expires_at >= now).scalar_subquery()
    waiting = select(Delivery.id).where(mine, Delivery.due_at <= now, _free(now)).exists()
    query = select(Webhook.id, Webhook.url, held).where(Webhook.deleted_at.is_(None), waiting)
    rows = (await session.execute(query)).tuples()
    found = [(webhook_id, url, AT_ONCE - count) for webhook_id, url, count in rows if count < AT_ONCE]
    random.shuffle(found)
    return found


async def claim(session: AsyncSession, webhook_id: str, url: str, limit: int, now: datetime) -> list[Claim]:
    """Take up to `limit` of the webhook's due deliveries, the longest due first; no other sender gets them."""
    oldest = (
        select(Delivery.id)
        .where(Delivery.webhook_id == webhook_id, Delivery.due_at <= now, _free(now))
        .order_by(Delivery.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    token = secrets.token_hex(16)
    taken = update(Delivery).where(Delivery.id.in_(oldest)).values(lease_token=token, lease_expires_at=now + LEASE)
    rows = (await session.scalars(taken.returning(Delivery))).all()
    return [Claim(row, url, token) for row in rows]


async def mark_delivered(session: AsyncSession, claim: Claim, status: int, now: datetime) -> DeliveryStatus | None:
    """The receiver took it. None, and nothing is written, when the lease was lost."""
    said: dict[str, Any] = {"last_status": status, "last_error": None, "delivered_at": now}
    return await _mark(session, claim, status=DeliveryStatus.DELIVERED, due_at=None, **said)


async def mark_failed(
    session: AsyncSession, claim: Claim, status: int | None, error: str, now: datetime
) -> DeliveryStatus | None:
    """The try failed: the next one is set, or the delivery is dead. None when the lease was lost."""
    said: dict[str, Any] = {"last_status": status, "last_error": error}
    if claim.delivery.attempts >= len(RETRIES):
        return await _mark(session, claim, status=DeliveryStatus.DEAD, due_at=None, **said)
    pause = RETRIES[claim.delivery.attempts] * random.uniform(0.8, 1.2)
    due_at = now + timedelta(seconds=pause)
    return await _mark(session, claim, status=DeliveryStatus.PENDING, due_at=due_at, **said)


async def _mark(session: AsyncSession, claim: Claim, **values: Any) -> DeliveryStatus | None:
    mine = (Delivery.id == claim.delivery.id) & (Delivery.lease_token == claim.token)
    released = {"lease_token": None, "lease_expires_at": None, "attempts": Delivery.attempts + 1}
    marked = update(Delivery).where(mine).values(**released, **values).returning(Delivery.status)
    return (await session.execute(marked)).scalar_one_or_none()


def _free(now: datetime) -> ColumnElement[bool]:
    """Held by no sender, or by one that let its lease run out."""
    return Delivery.lease_expires_at.is_(None) | (Delivery.lease_expires_at < now)


async def _get(session: AsyncSession, webhook: Webhook, delivery_id: str) -> Delivery:
    query = select(Delivery).where(Delivery.id == delivery_id, Delivery.webhook_id == webhook.id)
    query = query.execution_options(populate_existing=True)
    found = await session.scalar(query) if is_id(delivery_id, "dlv") else None
    if found is None:
        raise NotFound("The webhook has no such delivery; GET /v1/webhooks/{id}/deliveries lists them.")
    return found


def _row(webhook_id: str, type: str, data: dict[str, Any], now: datetime) -> dict[str, Any]:
    payload = {"type": type, "timestamp": now.isoformat(), "data": data}
    row = {"id": new_id("dlv"), "webhook_id": webhook_id, "type": type, "payload": payload}
    return {**row, "created_at": now, "status": DeliveryStatus.PENDING, "attempts": 0, "due_at": now}


def _sentence(message: str, detail: str) -> str:
    """Why and what to do, with the last line of what the reason itself cannot know."""
    said = detail.strip().splitlines()
    return f"{message} ({said[-1][:300]})" if said else message
