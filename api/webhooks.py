"""Webhooks: register a URL, try it out, see what was delivered and what is dead, send it again."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from api import problems
from api.deps import After, Behind, Creating, Limit, Made, Member, Viewer, Writing, page
from api.schemas import DeliveryView, NewWebhook, Page, WebhookCreate, WebhookView
from service import addresses, outbox, webhooks
from service.errors import InvalidRequest, Pointer
from service.tables import DeliveryStatus

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

Only = Annotated[DeliveryStatus | None, Query(description="Only deliveries that are this.")]


@router.post("", status_code=201, response_model=NewWebhook, responses=problems.declared(400, 409))
async def create_webhook(body: WebhookCreate, caller: Member, behind: Behind, create: Creating) -> Response:
    """Have the project's events sent to a URL, signed as Standard Webhooks say.

    The secret is in this answer alone. Each event arrives at least once, under one `webhook-id`, and in no promised
    order: `data.sequence` tells a job's events apart. What is not answered with 2xx within 10 seconds is tried again,
    eight times over about 16 hours; after that the delivery is `dead` until it is replayed.
    """
    try:
        url = addresses.parse(body.url)
        await addresses.checked(url, behind.settings.webhook_private_addresses)
    except addresses.Refused as error:
        raise InvalidRequest(f"/url: {error}", [Pointer("/url", str(error))]) from error

    async def make(session: AsyncSession, now: datetime) -> Made:
        row = await webhooks.create(session, caller.project_id, str(url), body.events, now)
        secret = webhooks.secret(await webhooks.signing_key(session), row.id)
        return Made(f"/v1/webhooks/{row.id}", NewWebhook(secret=secret, **WebhookView.model_validate(row).model_dump()))

    return await create(201, make, url=str(url))


@router.get("", responses=problems.declared())
async def list_webhooks(caller: Viewer, behind: Behind, limit: Limit = 20, after: After = None) -> Page[WebhookView]:
    """The project's webhooks, the newest first."""
    async with behind.db.read() as session:
        rows = await webhooks.page(session, caller.project_id, limit=limit, after=after)
    return page(rows, limit, WebhookView.model_validate, lambda row: row.id)


@router.get("/{webhook_id}", responses=problems.declared(404))
async def get_webhook(webhook_id: str, caller: Viewer, behind: Behind) -> WebhookView:
    """One webhook; its secret is not shown again."""
    async with behind.db.read() as session:
        return WebhookView.model_validate(await webhooks.get(session, caller.project_id, webhook_id))


@router.delete("/{webhook_id}", responses=problems.declared(404))
async def delete_webhook(webhook_id: str, caller: Member, write: Writing) -> WebhookView:
    """End a webhook: nothing is sent to it any more, not even what was waiting to be tried again."""
    async with write(webhook_id) as (session, now):
        return WebhookView.model_validate(await webhooks.delete(session, caller.project_id, webhook_id, now))


@router.post("/{webhook_id}/test", status_code=202, responses=problems.declared(404))
async def test_webhook(webhook_id: str, caller: Member, write: Writing) -> DeliveryView:
    """Send a `webhook.test`, like any other delivery; the list of deliveries shows how it went."""
    async with write(webhook_id) as (session, now):
        return DeliveryView.model_validate(await outbox.send_test(session, caller.project_id, webhook_id, now))


@router.get("/{webhook_id}/deliveries", responses=problems.declared(404))
async def list_deliveries(
    webhook_id: str, caller: Viewer, behind: Behind, status: Only = None, limit: Limit = 20, after: After = None
) -> Page[DeliveryView]:
    """What was sent to a webhook and what is to be, the newest first."""
    async with behind.db.read() as session:
        mine = (session, caller.project_id, webhook_id)
        rows = await outbox.page(*mine, limit=limit, after=after, status=status)
    return page(rows, limit, DeliveryView.model_validate, lambda row: row.id)


@router.post("/{webhook_id}/deliveries/{delivery_id}/replay", status_code=202, responses=problems.declared(404, 409))
async def replay_delivery(webhook_id: str, delivery_id: str, caller: Member, write: Writing) -> DeliveryView:
    """Send a delivery again that was delivered or is dead, under the same id. 409 while it is still being tried."""
    async with write(delivery_id) as (session, now):
        row = await outbox.replay(session, caller.project_id, webhook_id, delivery_id, now)
        return DeliveryView.model_validate(row)
