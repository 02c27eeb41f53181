"""Server-sent events: rows as they come, resumed by number, with a heartbeat, over when the job is.

However many streams are open, one look at the database every half second tells which jobs have something new; the rows
are then read and written out once for each job, and not for each who listens to it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from fastapi import Request
from prometheus_client import Gauge
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import StreamingResponse

from service.db import Database
from service.status import TERMINAL
from service.tables import Job

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
MEDIA_TYPE = "text/event-stream"
COUNTERS = {"event": Job.last_event, "log": Job.last_log}
"""Where a job's row says how far each kind of stream has come."""
JOBS_OF_A_LOOK = 500

Fetch = Callable[[int], Awaitable[tuple[Sequence[tuple[int, BaseModel]], bool]]]
"""From a number: the rows that follow it, each with its own, and whether the job was over before they were read."""

log = structlog.get_logger(__name__)


@dataclass
class Topic:
    """What is known of one job's events, or of its log lines, for all who listen to them here."""

    last: int | None = None
    """Its newest number at the last look."""
    over: bool = False
    listeners: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is something new, and then replaced."""
    reads: dict[int, "asyncio.Task[tuple[str, int]]"] = field(default_factory=dict)

    def see(self, last: int, over: bool) -> None:
        if (last, over) != (self.last, self.over):
            self.last, self.over = last, over
            self.reads.clear()
            self.changed.set()
            self.changed = asyncio.Event()

    async def read(self, kind: str, fetch: Fetch, after: int) -> tuple[str, int]:
        """The rows behind `after` as they are sent, and the last one's number; read once for all who ask for them."""
        if after not in self.reads:
            self.reads[after] = asyncio.create_task(_written(kind, fetch, after))
        try:
            return await asyncio.shield(self.reads[after])
        except Exception:
            self.reads.pop(after, None)  # whoever asks next tries again
            raise


class Watch:
    """Looks for all streams of this process, while there are any."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._topics: dict[tuple[str, str], Topic] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def listening(self, kind: str, job_id: str) -> Iterator[Topic]:
        """The topic, kept up to date for as long as anybody listens."""
        topic = self._topics.setdefault((kind, job_id), Topic())
        topic.listeners += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._run())
        try:
            yield topic
        finally:
            topic.listeners -= 1
            if not topic.listeners:
                del self._topics[kind, job_id]

    async def _run(self) -> None:
        while self._topics:
            try:
                await self._look()
            except (SQLAlchemyError, OSError) as error:  # the streams wait as long as the database is away
                log.warning("stream.look_failed", error=type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self) -> None:
        job_ids = sorted({job_id for _, job_id in self._topics})
        for i in range(0, len(job_ids), JOBS_OF_A_LOOK):
            some = job_ids[i : i + JOBS_OF_A_LOOK]
            query = select(Job.id, Job.status, *COUNTERS.values()).where(Job.id.in_(some))
            async with self._db.read() as session:
                rows = (await session.execute(query)).all()
            for job_id, status, *numbers in rows:
                for kind, last in zip(COUNTERS, numbers, strict=True):
                    if (kind, job_id) in self._topics:
                        self._topics[kind, job_id].see(last, status in TERMINAL)


def wanted(request: Request) -> bool:
    """Whether the client asked for a stream instead of a page."""
    return MEDIA_TYPE in request.headers.get("accept", "")


def start(request: Request, after: int) -> int:
    """Where to begin: behind `Last-Event-ID`, else behind `after`."""
    last = request.headers.get("last-event-id", "")
    return int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else after


def stream(kind: str, job_id: str, fetch: Fetch, after: int, watch: Watch, clients: Gauge) -> StreamingResponse:
    """Every row as an event named `kind` whose id is its number; `event: end` when no more can come.

    `clients` counts the streams that are open.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = _events(kind, job_id, fetch, after, watch, clients)
    return StreamingResponse(events, media_type=MEDIA_TYPE, headers=headers)


async def _events(kind: str, job_id: str, fetch: Fetch, after: int, watch: Watch, clients: Gauge) -> AsyncIterator[str]:
    yield ": open\n\n"  # the headers leave at once, not with the first row
    with clients.track_inprogress(), watch.listening(kind, job_id) as topic:
        while True:
            changed = topic.changed
            if topic.last is None or after < topic.last:
                text, reached = await topic.read(kind, fetch, after)
                if text:
                    yield text
                    after = reached
                    continue
            elif topic.over:
                yield "event: end\ndata: {}\n\n"
                return
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield ": alive\n\n"


async def _written(kind: str, fetch: Fetch, after: int) -> tuple[str, int]:
    rows, _ = await fetch(after)
    text = "".join(f"id: {number}\nevent: {kind}\ndata: {row.model_dump_json()}\n\n" for number, row in rows)
    return text, rows[-1][0] if rows else after
