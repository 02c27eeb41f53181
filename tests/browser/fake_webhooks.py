"""Webhooks for the dashboard's browser tests: one that all goes well with, and one that does not answer."""

from datetime import timedelta

from fake_data import NOW, ago

from api.schemas import DeliveryView, WebhookView
from service.tables import DeliveryStatus
from service.webhooks import EventType


def webhooks() -> list[WebhookView]:
    ci, chat = (
        "https://ci.example.com/hooks/fewstep",
        "https://chat.example.com/services/T02/B44/a-long-token-of-the-team",
    )
    ends = [EventType.SUCCEEDED, EventType.FAILED, EventType.STUDENT]
    return [
        WebhookView(id="whk_chat", url=chat, events=ends, created_at=ago(days=3)),
        WebhookView(id="whk_ci", url=ci, events=[], created_at=ago(days=9)),
    ]


def delivery(
    number: int, type: str, status: DeliveryStatus, tries: int, answer: int | None, error: str
) -> DeliveryView:
    at = ago(minutes=90 - number)
    over = status is not DeliveryStatus.PENDING
    return DeliveryView.model_validate(
        {
            "id": f"dlv_{number:02d}",
            "webhook_id": "whk_chat",
            "type": type,
            "payload": {"type": type, "timestamp": at.isoformat(), "data": {"job": "job_01jd0083", "sequence": number}},
            "status": status,
            "attempts": tries,
            "created_at": at,
            "due_at": None if over else NOW + timedelta(hours=3),
            "last_status": answer,
            "last_error": error or None,
            "delivered_at": at if status is DeliveryStatus.DELIVERED else None,
        }
    )


def deliveries() -> list[DeliveryView]:
    """The newest first."""
    refused = "The receiver answered 500; any 2xx takes a delivery."
    return [
        delivery(42, "job.succeeded", DeliveryStatus.DELIVERED, 1, 204, ""),
        delivery(41, "job.student", DeliveryStatus.PENDING, 5, 500, refused),
        delivery(40, "job.failed", DeliveryStatus.DELIVERED, 2, 200, ""),
        delivery(39, "job.succeeded", DeliveryStatus.DEAD, 8, None, "No answer within 10 seconds."),
    ]
