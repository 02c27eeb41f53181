"""Projects: whose everything is, and how much of the cluster each may use."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import insert_once
from service.errors import Conflict, NotFound
from service.ids import is_id, new_id
from service.status import ACTIVE, Status
from service.tables import Job, Project

DEFAULT = "prj_00000000000000000000000000"
"""The project that is always there; its name is 'default'."""


@dataclass(frozen=True)
class Usage:
    """What a project's jobs hold or wait for at this moment."""

    queued: int = 0
    active: int = 0
    gpus: float = 0.0


async def ensure_default(session: AsyncSession, now: datetime) -> None:
    """Make the default project, if this is the database's first use."""
    row = {"id": DEFAULT, "name": "default", "weight": 1.0, "max_priority": 10, "created_at": now}
    await insert_once(session, Project, [row], unique=["id"])


async def create(session: AsyncSession, values: dict[str, Any], now: datetime) -> Project:
    """Make a project from its name and limits. Conflict when the name is taken."""
    if await session.scalar(select(Project.id).where(Project.name == values["name"])) is not None:
        raise Conflict(f"There is a project called '{values['name']}' already; choose another name.")
    project = Project(id=new_id("prj"), created_at=now, **values)
    session.add(project)
    await session.flush()
    return project


async def find(session: AsyncSession, project: str) -> Project | None:
    """By id or name."""
    column = Project.id if is_id(project, "prj") else Project.name
    query = select(Project).where(column == project).execution_options(populate_existing=True)
    return await session.scalar(query) if "\0" not in project else None


async def get(session: AsyncSession, project: str) -> Project:
    """By id or name. NotFound."""
    found = await find(session, project)
    if found is None:
        raise NotFound("There is no such project; GET /v1/projects lists those that this key may see.")
    return found


async def page(session: AsyncSession, *, limit: int, after: str | None = None) -> Sequence[Project]:
    """All projects, the newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(Project).order_by(Project.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Project.id < after)
    return (await session.scalars(query)).all()


async def change(session: AsyncSession, project: str, values: dict[str, Any]) -> Project:
    """Set some of a project's limits. NotFound."""
    found = await get(session, project)
    if values:
        await session.execute(update(Project).where(Project.id == found.id).values(**values))
    return await get(session, found.id)


async def usage(session: AsyncSession, project_ids: Sequence[str]) -> dict[str, Usage]:
    """What each of them uses now."""
    active = Job.status.in_(ACTIVE)
    gpus = func.coalesce(func.sum(case((active, Job.workers * Job.gpus_per_worker), else_=0.0)), 0.0)
    counts = [func.sum(case((wanted, 1), else_=0)) for wanted in (Job.status == Status.QUEUED, active)]
    query = select(Job.project_id, *counts, gpus).group_by(Job.project_id)
    query = query.where(Job.project_id.in_(project_ids), Job.status.in_((Status.QUEUED, *ACTIVE)))
    found = {row[0]: Usage(int(row[1]), int(row[2]), float(row[3])) for row in (await session.execute(query)).all()}
    return {project_id: found.get(project_id, Usage()) for project_id in project_ids}
