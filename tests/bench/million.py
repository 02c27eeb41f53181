"""A million jobs of one project, made by the database itself, and every list that the API offers of them."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode

from http1 import Connection, quantile, request
from plane import Plane
from sqlalchemy import Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from service import listing, submission, teachers
from service.db import Database
from service.inspection import Facts
from service.projects import DEFAULT, ensure_default
from service.spec import JobSpec
from service.status import Status
from service.tables import Job, JobMethod, Teacher

JOBS = 1_000_000
REPEATS = 50
KINDS = ("progressive", "consistency", "dmd2", "adversarial", "lcm", "shortcut")
FACTS = Facts("DDIMPipeline", "DDIMScheduler", "v_prediction", [1, 8, 8], 10, 1, "0" * 64)

_ID = "'job_' || substr('00000000000000000000000000', 1, 26 - length(CAST(i AS TEXT))) || CAST(i AS TEXT)"
_DIE = "(i % 1000 * 919 % 1000)"
_STATUS = f"""CASE WHEN {_DIE} < 2 THEN 'running' WHEN {_DIE} < 5 THEN 'queued' WHEN {_DIE} < 6 THEN 'starting'
  WHEN {_DIE} < 7 THEN 'finishing' WHEN {_DIE} < 12 THEN 'paused' WHEN {_DIE} < 100 THEN 'cancelled'
  WHEN {_DIE} < 200 THEN 'failed' ELSE 'succeeded' END"""
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"


@dataclass(frozen=True)
class Listed:
    """One list: how long it took over HTTP, in ms, and how the database reads it."""

    filters: str
    rows: int
    p50: float
    p99: float
    reads: str
    plan: str


async def template(session: AsyncSession, db: Database) -> Job:
    """One job as a submission leaves it, for the others to be copied from."""
    now = await db.now(session)
    await ensure_default(session, now)
    for i in range(8):
        await teachers.register(session, teachers.SHARED, f"teacher-{i}", teachers.BUILTIN, FACTS, now)
    spec = JobSpec.model_validate({"name": "first", "teacher": "teacher-0", "method": {"kind": "progressive"}})
    return await submission.submit(session, DEFAULT, spec, now)


def copies(count: int, **changes: str) -> str:
    """SQL that copies the template `count` times; `changes` are expressions over `i`, 1 to `count`."""
    columns = [column.name for column in Job.__table__.columns]
    values = ", ".join(changes.get(name, f"t.{name}") for name in columns)
    return (
        f"INSERT INTO jobs ({', '.join(columns)}) {_NUMBERS.format(count=count)} "
        f"SELECT {values} FROM n CROSS JOIN jobs t WHERE t.id = :template"
    )


async def fill(url: str) -> float:
    """Make the jobs; the seconds that it took."""
    started = time.monotonic()
    db = Database(url)
    kind = "CASE i / 8 % 6 " + " ".join(f"WHEN {n} THEN '{kind}'" for n, kind in enumerate(KINDS)) + " END"
    async with db.write() as session:
        first = await template(session, db)
        changes = {"id": _ID, "status": _STATUS, "name": "'run-' || CAST(i % 20000 AS TEXT)", "step": "60"}
        changes |= {"teacher": "'teacher-' || CAST(i % 8 AS TEXT)", "methods": f"' ' || {kind} || ' '"}
        teacher_id = "(SELECT id FROM teachers WHERE name = 'teacher-' || CAST(i % 8 AS TEXT))"
        bare = copies(JOBS, **changes, teacher_id=teacher_id, look_at="NULL")
        methods = "INSERT INTO job_methods SELECT project_id, trim(methods), id, status FROM jobs WHERE id <> :template"
        async with _unchecked(session, db):
            await session.execute(text(bare), {"template": first.id})
            await session.execute(text(methods), {"template": first.id})
        recent = "SELECT id FROM jobs WHERE status = 'running' ORDER BY id DESC LIMIT 200"
        metric = f"SELECT j.id, i, 0, t.created_at, '{{\"loss\": 1}}' FROM n CROSS JOIN ({recent}) j CROSS JOIN jobs t"
        if not db.is_sqlite:
            metric = metric.replace("'{\"loss\": 1}'", "CAST('{\"loss\": 1}' AS json)")
        steps = f'INSERT INTO metrics (job_id, step, stage, at, "values") {_NUMBERS.format(count=60)}'
        await session.execute(text(f"{steps} {metric} WHERE t.id = :template"), {"template": first.id})
    if not db.is_sqlite:  # as its own housekeeping does in time
        async with db.write() as session:
            connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            await connection.execute(text("VACUUM ANALYZE"))
    await db.close()
    return time.monotonic() - started


@asynccontextmanager
async def _unchecked(session: AsyncSession, db: Database) -> AsyncIterator[None]:
    """Indexes are made after the rows, and references are not checked one by one: both as a bulk load does."""
    tables = (Job.__table__, JobMethod.__table__)
    indexes = [index for table in tables for index in cast("Table", table).indexes]
    connection = await session.connection()

    async def check(verb: str) -> None:
        for table in tables if not db.is_sqlite else ():
            await session.execute(text(f"ALTER TABLE {table} {verb} TRIGGER ALL"))

    await check("DISABLE")
    await connection.run_sync(lambda sync: [index.drop(sync) for index in indexes])
    yield
    await connection.run_sync(lambda sync: [index.create(sync) for index in indexes])
    await check("ENABLE")


def queries(teacher_id: str) -> list[dict[str, list[str]]]:
    """The filters of each list."""
    middle = ["job_" + f"{JOBS // 2:026}"]
    live = ["queued", "starting", "running", "finishing", "paused"]
    singles: list[dict[str, list[str]]] = [
        {"status": ["succeeded"]},
        {"status": ["running"]},
        {"status": ["failed", "cancelled"]},
        {"status": live},
        {"teacher": ["teacher-3"]},
        {"teacher": [teacher_id]},
        {"method": ["dmd2"]},
        {"name": ["run-77"]},
    ]
    pairs: list[dict[str, list[str]]] = [
        {"status": ["failed"], "teacher": ["teacher-3"]},
        {"status": ["cancelled"], "method": ["dmd2"]},
        {"status": ["failed", "cancelled"], "name": ["run-77"]},
        {"teacher": ["teacher-3"], "method": ["dmd2"]},
        {"teacher": ["teacher-5"], "name": ["run-77"]},
        {"method": ["dmd2"], "name": ["run-77"]},
    ]
    nothing: list[dict[str, list[str]]] = [{"name": ["never"]}, {"teacher": ["nobody"]}, {"method": ["no-such-method"]}]
    nothing += [{"status": ["running"], "teacher": ["nobody"]}, {"status": live, "name": ["run-0"]}]
    return [{}, {"after": middle}, *singles, *({**one, "after": middle} for one in singles), *pairs, *nothing]


async def lists(plane: Plane) -> list[Listed]:
    """Ask for each list again and again, one client at a time, and let the database explain it."""
    db = Database(plane.database_url)
    async with db.read() as session:
        teacher = await teachers.find(session, DEFAULT, "teacher-4")
    connection = await Connection.open(plane.port)
    found = []
    for filters in queries(teacher.id):
        query = urlencode([("limit", "100"), *((name, one) for name, several in filters.items() for one in several)])
        message = request("GET", f"/v1/jobs?{query}", plane.key)
        latencies: list[float] = []
        for _ in range(REPEATS + 3):
            asked = time.perf_counter()
            status, body = await connection.ask(message)
            latencies.append(time.perf_counter() - asked)
            assert status == 200, body
        plan = await explain(db, filters, teacher)
        label = " ".join(f"{name}={'|'.join(several)[:24]}" for name, several in filters.items()) or "(none)"
        p50, p99 = (1000 * quantile(latencies[3:], q) for q in (0.5, 0.99))
        found.append(Listed(label, body.count(b'"eta_seconds"'), p50, p99, indexes(plan), plan))
    connection.close()
    await db.close()
    return found


async def explain(db: Database, filters: dict[str, list[str]], teacher: Teacher) -> str:
    """The plan of the list's own statement."""
    named = filters.get("teacher", [None])[0]
    statement = listing.statement(
        DEFAULT,
        101,
        filters.get("after", [None])[0],
        [Status(one) for one in filters.get("status", [])],
        teacher.name if named == teacher.id else named,
        filters.get("method", [None])[0],
        filters.get("name", [None])[0],
        [Job.teacher_id == teacher.id] if named == teacher.id else [],
    )
    dialect = sqlite.dialect() if db.is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    sql = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    verb = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)"
    async with db.read() as session:
        rows = (await (await session.connection()).exec_driver_sql(f"{verb} {sql}")).all()
    return "\n".join(str(row[-1]) for row in rows)


def indexes(plan: str) -> str:
    """What a plan reads, each index or table once."""
    names = re.findall(
        r"(?:USING (?:COVERING )?INDEX|(?:Index|Index Only|Bitmap Index) Scan(?: Backward)? (?:using|on)) (\S+)", plan
    )
    scans = re.findall(r"Seq Scan on (?:jobs|job_methods)\b|SCAN (?:jobs|job_methods)$", plan, re.MULTILINE)
    return ", ".join(dict.fromkeys([*scans, *names]))
