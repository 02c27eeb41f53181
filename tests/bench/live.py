"""Jobs on the cluster that have nothing to be done about: how far behind the reconciler is, and what each costs."""

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from million import copies, template
from sqlalchemy import func, select, text

from service.db import Database
from service.reconcile import Reconciler
from service.settings import Settings
from service.tables import Job

sys.path.append(str(Path(__file__).parent.parent / "service"))
from fake_cluster import FakeCluster, Started

from service.cluster import RayStatus

SECONDS = 15.0
_DIGITS = "substr('00000000000000000000000000', 1, 26 - length(CAST(i AS TEXT))) || CAST(i AS TEXT)"


@dataclass(frozen=True)
class Reconciled:
    """`lag`: seconds that the most overdue look was late, at worst; `cost`: ms of CPU for each job and second."""

    jobs: int
    lag: float
    cost: float
    looks: float
    """Looks at a job, a second."""


async def reconcile(url: str, home: Path, count: int) -> Reconciled:
    """Let one reconciler keep `count` running jobs, on an empty database."""
    db = Database(url)
    cluster = FakeCluster()
    async with db.write() as session:
        first = await template(session, db)
        now = "CURRENT_TIMESTAMP"
        changes = {"id": f"'job_' || {_DIGITS}", "status": "'running'", "attempt": "1", "look_at": now}
        await session.execute(text(copies(count, **changes)), {"template": first.id})
        await session.execute(text("DELETE FROM job_methods"))
        await session.execute(text("DELETE FROM events"))
        await session.execute(text("DELETE FROM jobs WHERE id = :template"), {"template": first.id})
        columns = "id, job_id, number, submission_id, gpus, created_at, submitted_at, writer, acknowledged"
        values = f"'att_' || substr(id, 5), id, 1, 'job-' || substr(id, 5) || '-a1', 0, {now}, {now}, 1, 1"
        made = (
            f"INSERT INTO attempts ({columns}, last_report_at, progressed_at, phase) "
            f"SELECT {values}, {now}, {now}, 'training' FROM jobs"
        )
        await session.execute(text(made))
    for i in range(1, count + 1):
        name = f"job-{i:026}-a1"
        cluster.known[name] = Started(name, {}, RayStatus.RUNNING)
    settings = Settings(home=home, database_url=url, max_running=count)
    reconciler = asyncio.create_task(Reconciler(db, cluster, settings).run())
    await asyncio.sleep(6)  # all were due at once; from here on they are due in turn
    started, cpu, worst = time.perf_counter(), time.process_time(), 0.0
    while time.perf_counter() - started < SECONDS:
        await asyncio.sleep(0.5)
        async with db.read() as session:
            due = await session.scalar(select(func.min(Job.look_at)).where(Job.look_at.is_not(None)))
            assert due is not None
            worst = max(worst, ((await db.now(session)) - due).total_seconds())
    spent = time.perf_counter() - started
    cost = (time.process_time() - cpu) / spent / count
    reconciler.cancel()
    await asyncio.gather(reconciler, return_exceptions=True)
    async with db.read() as session:
        kept = await session.scalar(select(func.count()).where(Job.status == "running"))
    assert kept == count, f"only {kept} of {count} jobs are running still"
    await db.close()
    return Reconciled(count, max(0.0, worst), 1000 * cost, count / 5)
