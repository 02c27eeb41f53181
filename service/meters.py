"""What the platform counts of itself, for Prometheus: every series, once. Labels are words, never ids.

Counters and histograms are this process's own: sum them over all processes. Gauges of jobs are read from the database,
so every process shows the same: take the greatest.
"""

import asyncio
import time
from datetime import datetime

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from sqlalchemy import case, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import Database
from service.status import TERMINAL, Reason, Status
from service.tables import Attempt, Job

log = structlog.get_logger(__name__)

LIVE = tuple(status for status in Status if status not in TERMINAL)
"""Statuses whose jobs are counted where they stand; the others only grow, and are counted as they are reached."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

FRESH = 1.0
"""Seconds for which figures read from rows are good; ten times as long as they took to read, if that is longer."""

PATIENCE = 5.0
"""Seconds that reading them may take."""

LOOP_INTERVAL = 0.25
"""Seconds between two looks at how late the event loop is."""

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0)
"""Upper bounds of the histograms' buckets, in seconds."""


class Meters:
    """The series of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._reading = asyncio.Lock()
        self._good_until = 0.0
        ProcessCollector(registry=registry)
        self.jobs = Gauge("fewstep_jobs", "Jobs that are not over, by status.", ["status"], registry=registry)
        self.queue_wait = Histogram(
            "fewstep_queue_wait_seconds", "Waited, of jobs given a place.", buckets=LONG, registry=registry
        )
        self.queue_oldest = Gauge(
            "fewstep_queue_oldest_seconds", "Waited so far, of the queued job that waits longest.", registry=registry
        )
        self.transitions = Counter(
            "fewstep_job_transitions", "Changes of a job's status.", ["to", "reason"], registry=registry
        )
        self.reconcile_lag = Gauge(
            "fewstep_reconcile_lag_seconds", "How overdue the most overdue look at a job is.", registry=registry
        )
        self.tick = Histogram(
            "fewstep_reconcile_tick_seconds", "One round of the reconciler.", buckets=SHORT, registry=registry
        )
        self.lease_expiries = Counter(
            "fewstep_lease_expiries", "Jobs taken over from a holder whose lease had run out.", registry=registry
        )
        self.loop_lag = Histogram(
            "fewstep_event_loop_lag_seconds", "How late the event loop woke up.", buckets=SHORT, registry=registry
        )
        self.gpu_seconds = Counter(
            "fewstep_gpu_seconds", "GPUs times seconds of the attempts that ended.", registry=registry
        )
        self.webhook_attempts = Counter(
            "fewstep_webhook_attempts", "Tries to deliver, by how they ended.", ["outcome"], registry=registry
        )
        self.sse_clients = Gauge("fewstep_sse_clients", "Event streams that are open.", registry=registry)
        self.http_requests = Counter(
            "fewstep_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.http_seconds = Histogram(
            "fewstep_http_request_seconds", "Until the answer's first byte.", ["route"], registry=registry
        )
        for status in LIVE:
            self.jobs.labels(status.value).set(0)

    def moved(self, to: Status, reason: Reason) -> None:
        """A job's status has changed, and that is committed."""
        self.transitions.labels(to.value, reason.value).inc()

    def ended(self, attempt: Attempt, now: datetime) -> None:
        """An attempt has ended, and that is committed."""
        self.gpu_seconds.inc(attempt.gpus * max(0.0, (now - attempt.created_at).total_seconds()))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is its template."""
        self.http_requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self.http_seconds.labels(route).observe(seconds)

    async def refresh(self, db: Database) -> None:
        """Read the rows anew, if that was not done a moment ago. While the database is away all stays as it was."""
        async with self._reading:
            start = time.monotonic()
            if start < self._good_until:
                return
            try:
                async with asyncio.timeout(PATIENCE), db.read() as session:
                    await self.read(session, await db.now(session))
            except (SQLAlchemyError, OSError) as error:
                log.warning("meters.stale", error=type(error).__name__)
            end = time.monotonic()
            self._good_until = end + max(FRESH, 10 * (end - start))

    async def read(self, session: AsyncSession, now: datetime) -> None:
        """Set what is read from rows: of live jobs only, by their index."""
        waits_since = func.min(func.coalesce(Job.requeued_at, Job.created_at), type_=Job.created_at.type)
        live = select(Job.status, func.count(), waits_since).where(Job.status.in_(LIVE)).group_by(Job.status)
        found = {status: (count, since) for status, count, since in (await session.execute(live)).tuples()}
        for status in LIVE:
            self.jobs.labels(status.value).set(found[status][0] if status in found else 0)
        queued = found.get(Status.QUEUED)
        self.queue_oldest.set((now - queued[1]).total_seconds() if queued else 0)
        # A look that is due at once carries a time of long ago; what asked for it has touched the row.
        due_since = case((Job.look_at < Job.created_at, Job.updated_at), else_=Job.look_at)
        free = Job.lease_expires_at.is_(None) | (Job.lease_expires_at < now)
        overdue = select(func.min(due_since, type_=Job.look_at.type)).where(Job.look_at <= now, free)
        oldest = await session.scalar(overdue)
        self.reconcile_lag.set(max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0)

    async def watch_loop(self) -> None:
        """Measure the event loop until cancelled: how late it wakes up who asked to be woken."""
        while True:
            asked = time.monotonic()
            await asyncio.sleep(LOOP_INTERVAL)
            self.loop_lag.observe(max(0.0, time.monotonic() - asked - LOOP_INTERVAL))
