"""Students: what jobs leave. Found by id, or by name (the newest of that name)."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service import events
from service.db import insert_once
from service.errors import NotFound
from service.ids import is_id, new_id
from service.observations import StudentExported
from service.tables import Job, Student


async def store(session: AsyncSession, job: Job, seen: StudentExported, now: datetime) -> None:
    """Write the student down; a repeat of the same label, from a later attempt, replaces what was said before."""
    row = seen.model_dump(mode="json", exclude={"type", "seq", "at"})
    row |= {
        "id": new_id("stu"),
        "project_id": job.project_id,
        "job_id": job.id,
        "name": f"{job.name or f'{job.teacher}-{job.id[-6:]}'}-{seen.label}",
        "teacher": job.teacher,
        "created_at": now,
    }
    kept = {"id", "project_id", "job_id", "label", "created_at"}
    await insert_once(session, Student, [row], ["job_id", "label"], update=[name for name in row if name not in kept])
    data = {"label": seen.label, "steps": seen.steps}
    await events.emit(session, job.id, "student", f"Student {seen.label} was exported and checked.", now, data=data)


async def get(session: AsyncSession, project_id: str, student: str) -> Student:
    """By id or name. NotFound."""
    column = Student.id if is_id(student, "stu") else Student.name
    query = select(Student).where(Student.project_id == project_id, column == student)
    found = await session.scalar(query.order_by(Student.id.desc()).limit(1)) if "\0" not in student else None
    if found is None:
        raise NotFound("There is no such student; GET /v1/students lists them.")
    return found


async def page(
    session: AsyncSession,
    project_id: str,
    *,
    limit: int,
    after: str | None = None,
    job: str | None = None,
    teacher: str | None = None,
    method: str | None = None,
    name: str | None = None,
) -> Sequence[Student]:
    """The newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(Student).where(Student.project_id == project_id).order_by(Student.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Student.id < after)
    for column, value in (
        (Student.job_id, job),
        (Student.teacher, teacher),
        (Student.method, method),
        (Student.name, name),
    ):
        if value is not None:
            query = query.where(column == value)
    return (await session.scalars(query)).all()


async def ids_of_jobs(session: AsyncSession, job_ids: Sequence[str]) -> dict[str, list[str]]:
    """The students that each job left, in the order of their export."""
    query = select(Student.job_id, Student.id).where(Student.job_id.in_(job_ids)).order_by(Student.id)
    left: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for job_id, student_id in (await session.execute(query)).tuples():
        left[job_id].append(student_id)
    return left
