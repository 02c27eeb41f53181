"""Lists of jobs: what each filter finds, and that it is read from an index however many jobs there are."""

from itertools import combinations, pairwise
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.dialects import postgresql, sqlite

from service import listing, submission
from service.db import Database
from service.projects import DEFAULT
from service.spec import JobSpec
from service.status import Status
from service.tables import Job, JobMethod, Teacher

KINDS = ("progressive", "consistency")
FILTERS: dict[str, Any] = {
    "statuses": [Status.FAILED, Status.QUEUED],
    "teacher": "digits",
    "method": "consistency",
    "name": "name-1",
    "after": "job_01j00000000000000000000009",
}


async def submit(db: Database, teacher: Teacher, number: int) -> None:
    spec = {"name": f"name-{number % 3}", "teacher": "digits", "method": {"kind": KINDS[number % 2]}}
    status = [Status.QUEUED, Status.FAILED, Status.SUCCEEDED, Status.RUNNING][number % 4]
    async with db.write() as session:
        job = await submission.submit(session, DEFAULT, JobSpec.model_validate(spec), await db.now(session))
        await session.execute(update(Job).where(Job.id == job.id).values(status=status))
        await session.execute(update(JobMethod).where(JobMethod.job_id == job.id).values(status=status))


def fits(job: Job, filters: dict[str, Any]) -> bool:
    return (
        job.status in filters.get("statuses", Status)
        and job.teacher == filters.get("teacher", job.teacher)
        and f" {filters.get('method', job.methods.strip())} " in job.methods
        and job.name == filters.get("name", job.name)
        and job.id < filters.get("after", "k")
    )


async def test_each_filter_and_each_two_find_what_fits(db: Database, digits: Teacher) -> None:
    for number in range(24):
        await submit(db, digits, number)
    async with db.read() as session:
        every = await listing.page(session, DEFAULT, limit=100)
        assert [job.id for job in every] == sorted((job.id for job in every), reverse=True)
        assert len(every) == 24
        asked = FILTERS | {"after": every[6].id}
        for size in range(4):
            for names in combinations(asked, size):
                filters = {name: asked[name] for name in names}
                expected = [job.id for job in every if fits(job, filters)]
                found = await listing.page(session, DEFAULT, limit=3, **filters)
                assert [job.id for job in found] == expected[:4], filters
        by_id = await listing.page(session, DEFAULT, limit=100, teacher=digits.id)
        assert len(by_id) == 24
        assert not await listing.page(session, "prj_other", limit=100)


@pytest.mark.parametrize("size", [0, 1, 2])
async def test_no_list_reads_or_sorts_all_jobs(db: Database, digits: Teacher, size: int) -> None:
    async with db.write() as session:
        first = await submission.submit(
            session,
            DEFAULT,
            JobSpec.model_validate({"name": "name-1", "teacher": "digits", "method": {"kind": "consistency"}}),
            await db.now(session),
        )
        columns = [column.name for column in Job.__table__.columns]
        changes = {"id": "'job_' || CAST(i AS TEXT)", "name": "'name-' || CAST(i % 50 AS TEXT)"}
        changes["status"] = "CASE i % 3 WHEN 0 THEN 'succeeded' WHEN 1 THEN 'failed' ELSE 'queued' END"
        values = ", ".join(changes.get(name, f"t.{name}") for name in columns)
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        copied = f"INSERT INTO jobs ({', '.join(columns)}) {numbers} SELECT {values} FROM n CROSS JOIN jobs t"
        await session.execute(text(copied))
        found = "SELECT project_id, 'consistency', id, status FROM jobs WHERE id <> :first"
        await session.execute(text(f"INSERT INTO job_methods {found}"), {"first": first.id})
        await session.execute(text("ANALYZE"))
    for names in combinations(FILTERS, size):
        filters = dict.fromkeys(("after", "statuses", "teacher", "method", "name")) | {n: FILTERS[n] for n in names}
        filters["statuses"] = filters["statuses"] or ()
        plan = await explain(db, listing.statement(DEFAULT, 21, **filters))
        assert "Seq Scan on job" not in plan, f"{names}\n{plan}"
        assert "SCAN job" not in plan, f"{names}\n{plan}"
        if db.is_sqlite:
            assert "ix_job" in plan, f"{names}\n{plan}"
            lines = plan.splitlines()
            sorted_reads = [a for a, b in pairwise(lines[:-1]) if a.startswith("SEARCH") and "TEMP B-TREE" in b]
            assert not sorted_reads, f"only what was cut off already is sorted: {names}\n{plan}"


async def explain(db: Database, statement: Any) -> str:
    dialect = sqlite.dialect() if db.is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    sql = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    verb = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN"
    async with db.read() as session:
        connection = await session.connection()
        if not db.is_sqlite:  # a few thousand rows are soonest read whole; what is asked is whether they need be
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        rows = (await connection.exec_driver_sql(f"{verb} {sql}")).all()
    return "\n".join(str(row[-1]) for row in rows)
