"""A thousand streams of running jobs: how long from a commit to its receipt, and what a stream costs."""

import asyncio
import json
import time
from dataclasses import dataclass

from http1 import quantile, request
from plane import Plane

from service import events, submission
from service.db import Database
from service.projects import DEFAULT
from service.spec import JobSpec

LISTENERS = 1000
JOBS = 20
EVENTS = 10
"""Of each job, one a second."""


@dataclass(frozen=True)
class Heard:
    """Delays in ms from the commit to the receipt, over all listeners; memory in KB; queries over all streams."""

    p50: float
    p99: float
    expected: int
    received: int
    kilobytes: float
    opened_seconds: float
    cpu: float
    """Of one core, while they listen."""


async def hear(plane: Plane) -> Heard:
    db = Database(plane.database_url)
    async with db.write() as session:
        now = await db.now(session)
        spec = JobSpec.model_validate({"teacher": "digits", "method": {"kind": "progressive"}})
        job_ids = [(await submission.submit(session, DEFAULT, spec, now)).id for _ in range(JOBS)]
    delays: list[float] = []
    memory = plane.memory()
    began = time.perf_counter()
    readers = []
    for i in range(LISTENERS):
        readers.append(asyncio.create_task(_listen(plane, job_ids[i % JOBS], delays)))
        if i % 20 == 19:
            await asyncio.sleep(0.02)
    while sum(reader.done() for reader in readers) < LISTENERS:
        await asyncio.sleep(0.05)
    opened = time.perf_counter() - began
    tasks = [await reader for reader in readers]
    await asyncio.sleep(2)
    grown = plane.memory() - memory
    cpu, started = plane.cpu(), time.perf_counter()
    for _ in range(EVENTS):
        for job_id in job_ids:
            async with db.write() as session:
                at = await db.now(session)
                await events.emit(session, job_id, "attempt", "", at, data={"sent": time.time()})
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    share = (plane.cpu() - cpu) / (time.perf_counter() - started)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await db.close()
    expected = LISTENERS * EVENTS
    p50, p99 = (1000 * quantile(delays, q) for q in (0.5, 0.99))
    return Heard(p50, p99, expected, len(delays), grown / LISTENERS / 1000, opened, share)


async def _listen(plane: Plane, job_id: str, delays: list[float]) -> "asyncio.Task[None]":
    """Open a stream; what is returned reads on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write(request("GET", f"/v1/jobs/{job_id}/events", plane.key, headers="Accept: text/event-stream\r\n"))
    while b": open" not in await reader.readline():
        pass

    async def read() -> None:
        try:
            while line := await reader.readline():
                if line.startswith(b"data:") and b'"sent"' in line:
                    delays.append(time.time() - json.loads(line[5:])["data"]["sent"])
        finally:
            writer.close()

    return asyncio.create_task(read())
