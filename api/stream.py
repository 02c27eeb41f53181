"""Server-sent events: rows as they come, resumed by number, with a heartbeat, over when the job is."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from fastapi import Request
from prometheus_client import Gauge
from pydantic import BaseModel
from starlette.responses import StreamingResponse

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
MEDIA_TYPE = "text/event-stream"

Fetch = Callable[[int], Awaitable[tuple[Sequence[tuple[int, BaseModel]], bool]]]
"""From a number: the rows that follow it, each with its own, and whether the job was over before they were read."""


def wanted(request: Request) -> bool:
    """Whether the client asked for a stream instead of a page."""
    return MEDIA_TYPE in request.headers.get("accept", "")


def start(request: Request, after: int) -> int:
    """Where to begin: behind `Last-Event-ID`, else behind `after`."""
    last = request.headers.get("last-event-id", "")
    return int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else after


def stream(event: str, fetch: Fetch, after: int, clients: Gauge) -> StreamingResponse:
    """Every row as an event named `event` whose id is its number; `event: end` when no more can come.

    `clients` counts the streams that are open.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_counted(clients, _events(event, fetch, after)), media_type=MEDIA_TYPE, headers=headers)


async def _counted(clients: Gauge, events: AsyncIterator[str]) -> AsyncIterator[str]:
    with clients.track_inprogress():
        async for event in events:
            yield event


async def _events(event: str, fetch: Fetch, after: int) -> AsyncIterator[str]:
    yield ": open\n\n"  # the headers leave at once, not with the first row
    last_sent = time.monotonic()
    while True:
        rows, over = await fetch(after)
        for number, row in rows:
            yield f"id: {number}\nevent: {event}\ndata: {row.model_dump_json()}\n\n"
            after, last_sent = number, time.monotonic()
        if rows:
            continue
        if over:
            yield "event: end\ndata: {}\n\n"
            return
        if time.monotonic() - last_sent > HEARTBEAT_SECONDS:
            yield ": alive\n\n"
            last_sent = time.monotonic()
        await asyncio.sleep(POLL_SECONDS)
