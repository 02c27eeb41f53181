"""The reconciler: compares what is wanted with what Ray shows, and is the only one to change a status.

Level-triggered: every tick looks at everything that is not settled, so a crash between two statements heals on the next
tick, in this process or another. Each action is guarded by the status and attempt that it was decided on, and each call
to Ray may be repeated, so several reconcilers on one PostgreSQL do no harm to each other.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service import attempts, jobs, nodes
from service.cluster import Cluster, ClusterUnavailable, RayCluster, RayJob
from service.db import Database
from service.decide import UNSEEN, Action, Conclude, Dispatch, Move, Stop, Submit, Unseen, decide
from service.deployments import Deployments
from service.logs import configure_logging
from service.settings import Settings
from service.status import Reason, Status
from service.tables import Attempt, Job

NODES_SECONDS = 5.0
"""Between looks at the cluster's machines."""

log = structlog.get_logger(__name__)

Seen = Mapping[str, RayJob] | Unseen


class Reconciler:
    """One loop over jobs and endpoints. `nudge()` makes it look at once instead of at the next tick."""

    def __init__(self, db: Database, cluster: Cluster, settings: Settings) -> None:
        self.last_tick_seconds = 0.0
        self.last_tick_at: float | None = None
        self._db = db
        self._cluster = cluster
        self._settings = settings
        self._deployments = Deployments(db, cluster, settings)
        self._nudged = asyncio.Event()
        self._swept: dict[str, datetime] = {}
        self._reachable = True
        self._nodes_seen_at: datetime | None = None

    def nudge(self) -> None:
        """Something changed that is worth a look."""
        self._nudged.set()

    async def run(self) -> None:
        """Tick until cancelled. No error of a tick ends the loop; it is logged, and the next tick tries again."""
        while True:
            self._nudged.clear()
            start = time.monotonic()
            try:
                await self.tick()
            except Exception:
                log.exception("reconcile.tick_failed")
            self.last_tick_at = time.time()
            self.last_tick_seconds = time.monotonic() - start
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self._settings.reconcile_interval)

    async def tick(self) -> None:
        """Look once at every unsettled job and every endpoint, and do what is due."""
        async with self._db.read() as session:
            work = bool(await jobs.unsettled(session))
        if work:
            # Ray is asked before the rows are read: what an attempt reported before it ended is then in the rows.
            seen = await self._look()
            if not isinstance(seen, Unseen):
                await self._see_nodes()
            async with self._db.read() as session:
                rows = await jobs.unsettled(session)
            for job in rows:
                try:
                    await self._settle(job.id, seen)
                except ClusterUnavailable as error:
                    log.warning("reconcile.cluster_unavailable", job=job.id, error=str(error))
                except Exception:
                    log.exception("reconcile.job_failed", job=job.id)
            await self._sweep(seen)
        await self._deployments.tick()

    async def _look(self) -> Seen:
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

    async def _see_nodes(self) -> None:
        async with self._db.read() as session:
            now = await self._db.now(session)
        if self._nodes_seen_at is not None and now - self._nodes_seen_at < timedelta(seconds=NODES_SECONDS):
            return
        try:
            seen = await self._cluster.nodes()
        except ClusterUnavailable as error:
            log.warning("reconcile.nodes_unseen", error=str(error))
            return
        async with self._db.write() as session:
            await nodes.store(session, seen, now)
        self._nodes_seen_at = now

    async def _settle(self, job_id: str, seen: Seen) -> None:
        """Decide and apply until there is nothing left to do about the job without another look at Ray."""
        while True:
            async with self._db.read() as session:
                job = await jobs.load(session, job_id)
                attempt = await attempts.current(session, job)
                now = await self._db.now(session)
            submission_id = attempt.submission_id if attempt is not None else ""
            sight = UNSEEN if isinstance(seen, Unseen) else seen.get(submission_id)
            action = decide(job, attempt, sight, now, self._settings)
            if action is None or not await self._apply(action, job, attempt, now):
                return

    async def _apply(self, action: Action, job: Job, attempt: Attempt | None, now: datetime) -> bool:
        """Carry out one action; whether it is worth deciding again at once."""
        if isinstance(action, Dispatch):
            return await self._dispatch(job, now)
        if isinstance(action, Move):
            async with self._db.write() as session:
                return await jobs.advance(session, job, action.to, action.reason, now, **_on_entry(action, job, now))
        assert attempt is not None, "every other action is about an attempt"
        if isinstance(action, Conclude):
            async with self._db.write() as session:
                return await _conclude(session, action, job, attempt, now)
        if isinstance(action, Submit):
            await self._submit(attempt, now)
        else:
            await self._stop(action, attempt, now)
        return False

    async def _dispatch(self, job: Job, now: datetime) -> bool:
        """Give the job a place on the cluster, if one is free: status and attempt are written before Ray is asked."""
        async with self._db.write() as session:
            await self._db.exclusive(session, "dispatch")
            if await jobs.count_active(session) >= self._settings.max_running:
                return False
            number = job.attempt + 1
            moved = await jobs.advance(
                session, job, Status.STARTING, Reason.DISPATCHED, now, attempt=number, not_before=None
            )
            if not moved:
                return False
            attempt = await attempts.create(session, job.id, number, now)
        await self._submit(attempt, now)
        return False

    async def _submit(self, attempt: Attempt, now: datetime) -> None:
        """Hand the attempt to Ray. Its id is fixed, so a repeat after a crash adopts what the first one started."""
        async with self._db.write() as session:
            key = await attempts.signing_key(session)
        env = {
            "FEWSTEP_URL": self._settings.resolved_public_url(),
            "FEWSTEP_ATTEMPT_ID": attempt.id,
            "FEWSTEP_ATTEMPT_TOKEN": attempts.token(key, attempt.id),
        }
        await self._cluster.submit(attempt.submission_id, env)
        log.info("reconcile.submitted", submission_id=attempt.submission_id)
        if attempt.submitted_at is None:
            async with self._db.write() as session:
                await session.execute(update(Attempt).where(Attempt.id == attempt.id).values(submitted_at=now))

    async def _stop(self, action: Stop, attempt: Attempt, now: datetime) -> None:
        async with self._db.write() as session:
            asked = {"stop_asked_at": now, "stop_reason": action.reason}
            await session.execute(update(Attempt).where(Attempt.id == attempt.id).values(**asked))
        await self._cluster.stop(attempt.submission_id)
        log.info("reconcile.stopped", submission_id=attempt.submission_id, reason=action.reason)

    async def _sweep(self, seen: Seen) -> None:
        """Stop what still runs on the cluster though its attempt ended a while ago, so that it wastes no machine."""
        if isinstance(seen, Unseen):
            return
        alive = [job.submission_id for job in seen.values() if not job.over]
        if not alive:
            return
        patience = timedelta(seconds=self._settings.cancel_deadline)
        async with self._db.read() as session:
            now = await self._db.now(session)
            ended = Attempt.ended_at < now - patience
            query = select(Attempt.submission_id).where(Attempt.submission_id.in_(alive), ended)
            left_over = (await session.scalars(query)).all()
        for submission_id in left_over:
            if now - self._swept.get(submission_id, now - patience) >= patience:
                self._swept[submission_id] = now
                await self._cluster.stop(submission_id)
                log.warning("reconcile.swept", submission_id=submission_id)


def _on_entry(action: Move, job: Job, now: datetime) -> dict[str, Any]:
    """The columns that a move sets besides the status."""
    if action.to is Status.RUNNING and job.started_at is None:
        return {"started_at": now}
    if action.reason is Reason.USER_RETRY:
        fresh = {"losses": 0, "failures": 0, "not_before": None}
        return {**fresh, "retries_done": job.retries_asked}
    return {}


async def _conclude(session: AsyncSession, action: Conclude, job: Job, attempt: Attempt, now: datetime) -> bool:
    values: dict[str, Any] = {}
    if action.charge == "loss":
        values["losses"] = job.losses + 1
    elif action.charge == "failure":
        values["failures"] = job.failures + 1
    if action.delay:
        values["not_before"] = now + timedelta(seconds=action.delay)
    moved = await jobs.advance(session, job, action.to, action.reason, now, detail=action.detail, **values)
    if moved:
        await attempts.end(session, attempt, action.reason, action.detail, now)
    return moved


async def main(settings: Settings) -> None:
    """Run the reconciler alone, until it is cancelled."""
    db = Database(settings.resolved_database_url())
    await db.open()
    cluster = RayCluster(settings)
    try:
        await Reconciler(db, cluster, settings).run()
    finally:
        await cluster.close()
        await db.close()


if __name__ == "__main__":
    configure_logging()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(Settings()))
