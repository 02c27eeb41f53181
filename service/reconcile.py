"""The reconciler: compares what is wanted with what Ray shows, and is the only one to change a status.

Level-triggered: what is due is claimed, decided on and looked at again, so a crash between two statements heals when
its lease ends, in this process or another. Any number of reconcilers may run on one PostgreSQL: each works on what it
has leased, calls Ray outside transactions, and writes only while the lease is its own.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from prometheus_client import start_http_server
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from service import attempts, housekeeping, jobs, nodes, queue, tracing
from service.cluster import Cluster, ClusterUnavailable, RayCluster, RayJob
from service.db import Database
from service.decide import UNSEEN, Action, Ask, Conclude, Move, Sight, Submit, Unseen, decide
from service.deliver import Deliverer
from service.deployments import Deployments
from service.housekeeping import Housekeeping
from service.leases import Claim, DutyLease, JobLeases, anything_due, forget_all
from service.logs import configure_logging
from service.meters import Meters
from service.settings import Settings
from service.status import Reason, Status
from service.tables import Attempt, Job

BATCH = 500
"""Jobs claimed at once."""

CALLS = 8
"""Jobs that are acted on at once, each with at most one call to Ray."""

HOUSE_SECONDS = 5.0
"""Between looks at the cluster's machines, and at what runs there without need."""

GATHER_SECONDS = 0.05
"""Nudges that come together are answered together; however many come, four fifths of the time are left to others."""

SWEEP_IDS = 1_000
"""Submissions looked up in one query."""

log = structlog.get_logger(__name__)


@dataclass
class View:
    """What Ray showed when it was last asked."""

    seen: Mapping[str, RayJob] | Unseen

    def of(self, attempt: Attempt | None) -> Sight:
        if isinstance(self.seen, Unseen) or attempt is None:
            return UNSEEN
        return self.seen.get(attempt.submission_id)


class Loop:
    """Does its work again and again; `nudge()` makes it go on at once instead of after the interval."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], interval: float) -> None:
        self._name = name
        self._work = work
        self._interval = interval
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        self._nudged.set()

    async def run(self) -> None:
        """Until cancelled. No error ends the loop; it is logged, and the next turn tries again."""
        while True:
            self._nudged.clear()
            began = time.monotonic()
            try:
                await self._work()
            except Exception:
                log.exception(f"{self._name}.tick_failed")
            took = time.monotonic() - began
            await asyncio.sleep(min(self._interval, max(GATHER_SECONDS, 4 * took)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._nudged.wait()


class Reconciler:
    """Loops over jobs and endpoints, apart since Serve may keep its caller waiting for minutes; and housekeeping."""

    def __init__(self, db: Database, cluster: Cluster, settings: Settings, meters: Meters | None = None) -> None:
        self._db = db
        self._cluster = cluster
        self._meters = meters or Meters()
        self._settings = settings
        self._leases = JobLeases(db, settings.lease_seconds)
        self._house = DutyLease(db, "cluster", settings.lease_seconds)
        self._deployments = Deployments(db, cluster, settings)
        self._house_kept_at: datetime | None = None
        self._swept: dict[str, datetime] = {}
        self._reachable = True
        self._calls = asyncio.Semaphore(CALLS)
        self._signing_key: bytes | None = None
        self._jobs = Loop("reconcile", self.tick_jobs, settings.reconcile_interval)
        self._endpoints = Loop("deployments", self._deployments.tick, settings.reconcile_interval)
        self._books = Housekeeping(db, settings.lease_seconds)

    def nudge(self) -> None:
        """Something changed that is worth a look."""
        self._jobs.nudge()
        self._endpoints.nudge()

    async def run(self) -> None:
        """Reconcile until cancelled; then give back what is held, so that another process can go on at once."""
        if self._db.is_sqlite:
            await forget_all(self._db)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._jobs.run())
                group.create_task(self._endpoints.run())
                group.create_task(Loop("housekeeping", self._books.tick, housekeeping.INTERVAL).run())
        finally:
            await self._leave()

    async def _leave(self) -> None:
        try:
            await self._leases.release_all()
            await self._house.release()
            await self._deployments.release()
            await self._books.release()
        except (SQLAlchemyError, OSError) as error:  # then the leases have to expire
            log.warning("reconcile.left_without_release", error=type(error).__name__)

    async def tick(self) -> None:
        """One turn of both loops."""
        await self.tick_jobs()
        await self._deployments.tick()

    async def tick_jobs(self) -> None:
        """Admit who fits, then look at every job that is due, and do what is to be done."""
        async with self._db.read() as session:
            now = await self._db.now(session)
            work = await anything_due(session, now)
        kept_at = self._house_kept_at
        if not work and kept_at is not None and now - kept_at < timedelta(seconds=HOUSE_SECONDS):
            return
        with self._meters.tick.time():
            # Ray is asked before the rows are read: what an attempt reported before it ended is then in the rows.
            view = View(await self._look())
            if not isinstance(view.seen, Unseen):
                await self._keep_house(view.seen, now)
                await queue.admit(self._db, self._settings, self._meters)
            while await self._settle_batch(view) == BATCH:
                pass

    async def _look(self) -> Mapping[str, RayJob] | Unseen:
        try:
            seen = await self._cluster.jobs()
        except ClusterUnavailable as error:
            if self._reachable:
                log.warning("reconcile.cluster_lost", error=str(error))
            self._reachable = False
            return UNSEEN
        if not self._reachable:
            log.info("reconcile.cluster_found")
        self._reachable = True
        return seen

    async def _settle_batch(self, view: View) -> int:
        """Claim jobs that are due and do what is to be done about them; returns how many there were."""
        claim = await self._leases.claim(BATCH)
        if not claim.jobs:
            return 0
        self._meters.lease_expiries.inc(claim.expired)
        async with self._leases.kept(claim), asyncio.TaskGroup() as group:
            busy = [job for job in claim.jobs if self._decide(job, claim.attempts.get(job.id), view, claim.now)]
            idle = {job.id for job in claim.jobs} - {job.id for job in busy}
            await self._leases.release(claim, idle)
            if any(_forgotten(claim.attempts.get(job.id), view) for job in busy):
                # Another process may have submitted it after Ray was asked. Now that it is leased, nobody can.
                view.seen = await self._look()
            for job in busy:
                group.create_task(self._settle(job.id, claim, view))
        return len(claim.jobs)

    def _decide(self, job: Job, attempt: Attempt | None, view: View, now: datetime) -> Action | None:
        return decide(job, attempt, view.of(attempt), now, self._settings)

    async def _settle(self, job_id: str, claim: Claim, view: View) -> None:
        """Act on one job until nothing is left to do about it without another look at Ray; then give it back."""
        again = False
        structlog.contextvars.bind_contextvars(job_id=job_id)  # of this task alone
        async with self._calls:
            try:
                while await self._step(job_id, claim.token, view):
                    pass
            except ClusterUnavailable as error:
                log.warning("reconcile.cluster_unavailable", error=str(error))
                view.seen, again = UNSEEN, True
            except Exception:
                log.exception("reconcile.job_failed")
                again = True
            await self._leases.release(claim, [job_id], again=again)

    async def _step(self, job_id: str, lease: str, view: View) -> bool:
        """Decide on the job's rows as they are now, and apply; whether it is worth deciding again at once."""
        async with self._db.read() as session:
            job = await jobs.load(session, job_id)
            attempt = await attempts.current(session, job)
            now = await self._db.now(session)
        if attempt is not None:
            structlog.contextvars.bind_contextvars(attempt_id=attempt.id)
        action = self._decide(job, attempt, view, now)
        if action is None or job.lease_token != lease:
            return False
        if isinstance(action, Move):
            async with self._db.write() as session:
                values = _on_entry(action, job, now)
                moved = await jobs.advance(session, job, action.to, action.reason, now, lease=lease, **values)
            if moved:
                self._moved(action)
            return moved
        assert attempt is not None, "every other action is about an attempt"
        if isinstance(action, Conclude):
            async with self._db.write() as session:
                moved = await _conclude(session, action, job, attempt, lease, now)
            if moved:
                self._moved(action)
                self._meters.ended(attempt, now)
                about = {"fewstep.job_id": job.id, "fewstep.attempt_id": attempt.id, "fewstep.reason": action.reason}
                tracing.record("job.attempt", job.traceparent, attempt.created_at, now, about)
            return moved
        if isinstance(action, Submit):
            await self._submit(job, attempt, lease, now)
        elif isinstance(action, Ask):
            async with self._db.write() as session:
                await attempts.mark(session, attempt, lease, asked_at=now, asked_reason=action.reason)
        else:
            await self._stop(attempt, action.reason, lease, now)
        return False

    def _moved(self, action: Move | Conclude) -> None:
        self._meters.moved(action.to, action.reason)
        log.info("reconcile.moved", to=action.to.value, reason=action.reason.value)

    async def _submit(self, job: Job, attempt: Attempt, lease: str, now: datetime) -> None:
        """Hand the attempt to Ray. Its id is fixed, so a repeat after a crash adopts what the first one started."""
        if self._signing_key is None:
            async with self._db.write() as session:
                self._signing_key = await attempts.signing_key(session)
        env = {
            "FEWSTEP_URL": self._settings.resolved_public_url(),
            "FEWSTEP_ATTEMPT_ID": attempt.id,
            "FEWSTEP_ATTEMPT_TOKEN": attempts.token(self._signing_key, attempt.id),
        }
        about = {"fewstep.job_id": job.id, "fewstep.attempt_id": attempt.id}
        with tracing.span("job.dispatch", job.traceparent, about):
            if (here := tracing.traceparent(job.traceparent)) is not None:
                env[tracing.VARIABLE] = here
            await self._cluster.submit(attempt.submission_id, env)
        log.info("reconcile.submitted", submission_id=attempt.submission_id)
        if attempt.submitted_at is None:
            async with self._db.write() as session:
                await attempts.mark(session, attempt, lease, submitted_at=now)

    async def _stop(self, attempt: Attempt, reason: Reason, lease: str, now: datetime) -> None:
        async with self._db.write() as session:
            if not await attempts.mark(session, attempt, lease, stop_asked_at=now, stop_reason=reason):
                return
        await self._cluster.stop(attempt.submission_id)
        log.info("reconcile.stopped", submission_id=attempt.submission_id, reason=reason)

    async def _keep_house(self, seen: Mapping[str, RayJob], now: datetime) -> None:
        """What one process does for all, every few seconds."""
        if self._house_kept_at is not None and now - self._house_kept_at < timedelta(seconds=HOUSE_SECONDS):
            return
        async with self._house.held() as mine:
            if mine:
                try:
                    machines = await self._cluster.nodes()
                    async with self._db.write() as session:
                        await nodes.store(session, machines, now)
                    await self._sweep([job.submission_id for job in seen.values() if not job.over])
                except ClusterUnavailable as error:
                    log.warning("reconcile.house_not_kept", error=str(error))
        self._house_kept_at = now

    async def _sweep(self, alive: list[str]) -> None:
        """Stop what still runs on the cluster though its attempt ended a while ago, so that it wastes no machine."""
        patience = timedelta(seconds=self._settings.cancel_deadline)
        left_over: list[str] = []
        async with self._db.read() as session:
            now = await self._db.now(session)
            for i in range(0, len(alive), SWEEP_IDS):
                some = Attempt.submission_id.in_(alive[i : i + SWEEP_IDS])
                query = select(Attempt.submission_id).where(some, Attempt.ended_at < now - patience)
                left_over += (await session.scalars(query)).all()
        self._swept = {name: at for name, at in self._swept.items() if now - at < patience}
        for submission_id in left_over:
            if submission_id not in self._swept:
                self._swept[submission_id] = now
                await self._cluster.stop(submission_id)
                log.warning("reconcile.swept", submission_id=submission_id)


def _forgotten(attempt: Attempt | None, view: View) -> bool:
    """Whether the attempt was handed to Ray, which does not show it."""
    return attempt is not None and attempt.submitted_at is not None and view.of(attempt) is None


def _on_entry(action: Move, job: Job, now: datetime) -> dict[str, Any]:
    """The columns that a move sets besides the status."""
    if action.to is Status.RUNNING and job.started_at is None:
        return {"started_at": now}
    if action.reason is Reason.USER_RETRY:
        fresh = {"losses": 0, "failures": 0, "run_seconds": 0.0, "not_before": None}
        return {**fresh, "retries_done": job.retries_asked}
    return {}


async def _conclude(
    session: AsyncSession, action: Conclude, job: Job, attempt: Attempt, lease: str, now: datetime
) -> bool:
    values: dict[str, Any] = {"run_seconds": job.run_seconds + (now - attempt.created_at).total_seconds()}
    match action.charge:
        case "loss":
            values["losses"] = job.losses + 1
        case "failure":
            values["failures"] = job.failures + 1
        case "preemption":
            values["preemptions"] = job.preemptions + 1
    if action.delay:
        values["not_before"] = now + timedelta(seconds=action.delay)
    moved = await jobs.advance(session, job, action.to, action.reason, now, detail=action.detail, lease=lease, **values)
    if moved:
        await attempts.end(session, attempt, action.reason, action.detail, now)
    return moved


async def main(settings: Settings) -> None:
    """Run the reconciler alone, and a sender of webhooks beside it, until it is cancelled."""
    db = Database(settings.resolved_database_url())
    await db.open()
    cluster, meters = RayCluster(settings), Meters()
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.host, meters.registry)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(Reconciler(db, cluster, settings, meters).run())
            group.create_task(Deliverer(db, settings, meters).run())
            group.create_task(meters.watch_loop())
    finally:
        await cluster.close()
        await db.close()


if __name__ == "__main__":
    configure_logging([tracing.log_ids] if tracing.set_up() else [])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(Settings()))
