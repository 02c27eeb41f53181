"""Metric points a second through the reports of running jobs, in batches as `workers/report.py` sends them.

A point is one value of one name at one step, as MLflow counts them.
"""

import asyncio
import json
import time
from itertools import count

from http1 import Connection, quantile, request
from plane import Plane
from sqlalchemy import func, select, update

from service import attempts, submission
from service.db import Database
from service.projects import DEFAULT
from service.spec import JobSpec
from service.status import Status
from service.tables import Job, Metric

NAMES = ("loss", "grad_norm", "learning_rate", "images_per_second", "teacher_gap", "ema_decay")
JOBS = 8
SECONDS = 6.0


async def running(plane: Plane, number: int) -> list[tuple[str, str]]:
    """(id, token) of the attempts of `number` new running jobs."""
    db = Database(plane.database_url)
    made = []
    async with db.write() as session:
        now = await db.now(session)
        key = await attempts.signing_key(session)
        spec = JobSpec.model_validate({"teacher": "digits", "method": {"kind": "progressive"}})
        for _ in range(number):
            job = await submission.submit(session, DEFAULT, spec, now)
            attempt = await attempts.create(session, job.id, 1, now)
            values = {"status": Status.RUNNING, "attempt": 1, "look_at": None}
            await session.execute(update(Job).where(Job.id == job.id).values(**values))
            made.append((attempt.id, attempts.token(key, attempt.id)))
    await db.close()
    return made


def report(attempt: tuple[str, str], first: int, steps: int) -> bytes:
    """A report of `steps` steps, numbered from `first`."""
    now = time.time()
    observations = [
        {"seq": n, "at": now, "type": "metrics", "step": n, "stage": 0, "values": {name: n / 7 for name in NAMES}}
        for n in range(first, first + steps)
    ]
    body = json.dumps({"observations": observations}).encode()
    return request("POST", f"/v1/attempts/{attempt[0]}/reports", attempt[1], body)


async def ingest(plane: Plane, steps: int) -> tuple[float, float]:
    """Points a second that were stored, and the p99 of one report in ms, with `steps` steps to a report."""
    made = await running(plane, JOBS)
    latencies: list[float] = []
    before = await _stored(plane)
    started = time.perf_counter()

    async def job(attempt: tuple[str, str]) -> None:
        connection = await Connection.open(plane.port)
        for batch in count():
            if (asked := time.perf_counter()) - started > SECONDS:
                break
            status, body = await connection.ask(report(attempt, 1 + batch * steps, steps))
            latencies.append(time.perf_counter() - asked)
            assert status == 200, body
        connection.close()

    await asyncio.gather(*(job(attempt) for attempt in made))
    spent = time.perf_counter() - started
    stored = await _stored(plane) - before
    assert stored == steps * len(latencies), "what was acknowledged is not what is stored"
    return stored * len(NAMES) / spent, 1000 * quantile(latencies, 0.99)


async def _stored(plane: Plane) -> int:
    db = Database(plane.database_url)
    async with db.read() as session:
        rows = (await session.execute(select(func.count()).select_from(Metric))).scalar_one()
    await db.close()
    return rows
