"""Endpoints: which students are to be served under which names."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.errors import Conflict, NotFound
from service.ids import is_id, new_id
from service.tables import Endpoint, EndpointStatus, Student

Pair = tuple[Endpoint, Student]


async def create(session: AsyncSession, name: str, student: Student, with_teacher: bool, now: datetime) -> Pair:
    """Ask for a student to be served. Conflict when the name is taken."""
    taken = await session.scalar(select(Endpoint).where(Endpoint.name == name))
    if taken is not None:
        wait = " It is being deleted; try again when it is gone." if taken.deleted_at is not None else ""
        raise Conflict(f"There is an endpoint called '{name}' already; choose another name or delete it.{wait}")
    endpoint_id = new_id("end")
    endpoint = Endpoint(
        id=endpoint_id,
        project_id=student.project_id,
        name=name,
        student_id=student.id,
        with_teacher=with_teacher,
        app=endpoint_id.replace("_", "-"),
        created_at=now,
        status=EndpointStatus.DEPLOYING,
        detail="Waiting for the cluster to start it.",
    )
    session.add(endpoint)
    await session.flush()
    return endpoint, student


async def get(session: AsyncSession, project_id: str, endpoint: str) -> Pair:
    """By id or name. NotFound."""
    column = Endpoint.id if is_id(endpoint, "end") else Endpoint.name
    query = select(Endpoint, Student).join(Student, Endpoint.student_id == Student.id)
    query = query.where(Endpoint.project_id == project_id, column == endpoint)
    found = (await session.execute(query)).tuples().one_or_none() if "\0" not in endpoint else None
    if found is None:
        raise NotFound("There is no such endpoint; GET /v1/endpoints lists them.")
    return found


async def page(session: AsyncSession, project_id: str, *, limit: int, after: str | None = None) -> Sequence[Pair]:
    """The newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(Endpoint, Student).join(Student, Endpoint.student_id == Student.id)
    query = query.where(Endpoint.project_id == project_id).order_by(Endpoint.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Endpoint.id < after)
    return (await session.execute(query)).tuples().all()


async def delete(session: AsyncSession, project_id: str, endpoint: str, now: datetime) -> Pair:
    """Ask for an endpoint to be taken down; its row goes when its application is gone. NotFound."""
    found, student = await get(session, project_id, endpoint)
    asked = update(Endpoint).where(Endpoint.id == found.id, Endpoint.deleted_at.is_(None)).values(deleted_at=now)
    await session.execute(asked)
    await session.refresh(found)
    return found, student


async def names(session: AsyncSession, project_id: str) -> set[str]:
    """The names of all its endpoints."""
    return set((await session.scalars(select(Endpoint.name).where(Endpoint.project_id == project_id))).all())
