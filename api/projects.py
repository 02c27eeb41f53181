"""Projects: what each may use of the cluster. Administrators make and change them; everybody else sees their own."""

from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from api import problems
from api.deps import Admin, After, Behind, Creating, Limit, Made, Viewer, Writing, page
from api.schemas import Page, ProjectChange, ProjectCreate, ProjectView, UsageView
from service import projects
from service.auth import Caller
from service.errors import NotFound
from service.status import Role
from service.tables import Project

router = APIRouter(prefix="/v1/projects", tags=["projects"])


@router.post("", status_code=201, response_model=ProjectView, responses=problems.declared(409))
async def create_project(body: ProjectCreate, caller: Admin, create: Creating) -> Response:
    """Make a project; its first key comes from POST /v1/keys."""

    async def make(session: AsyncSession, now: datetime) -> Made:
        project = await projects.create(session, body.model_dump(), now)
        return Made(f"/v1/projects/{project.id}", (await _views(session, [project]))[0])

    return await create(201, make, **body.model_dump())


@router.get("", responses=problems.declared())
async def list_projects(caller: Viewer, behind: Behind, limit: Limit = 20, after: After = None) -> Page[ProjectView]:
    """An administrator's key sees all projects, the newest first; every other key its own."""
    async with behind.db.read() as session:
        if caller.role is Role.ADMIN:
            rows = await projects.page(session, limit=limit, after=after)
        else:
            own = caller.project_id
            rows = [await projects.get(session, own)] if after is None or own < after else []
        views = await _views(session, rows)
    return page(views, limit, lambda view: view, lambda view: view.id)


@router.get("/{project}", responses=problems.declared())
async def get_project(project: str, caller: Viewer, behind: Behind) -> ProjectView:
    """One project, by id or name."""
    async with behind.db.read() as session:
        row = await projects.get(session, project)
        _check_visible(caller, row)
        return (await _views(session, [row]))[0]


@router.patch("/{project}", responses=problems.declared())
async def change_project(project: str, body: ProjectChange, caller: Admin, write: Writing) -> ProjectView:
    """Change a project's limits; what is not given stays as it is. Jobs that run already go on."""
    values = body.model_dump(exclude_unset=True)
    async with write(project, **values) as (session, _):
        row = await projects.change(session, project, values)
        write.target = row.id
        return (await _views(session, [row]))[0]


def _check_visible(caller: Caller, row: Project) -> None:
    if caller.role is not Role.ADMIN and row.id != caller.project_id:
        raise NotFound("There is no such project; GET /v1/projects lists those that this key may see.")


async def _views(session: AsyncSession, rows: Sequence[Project]) -> list[ProjectView]:
    used = await projects.usage(session, [row.id for row in rows])
    fields = [name for name in ProjectView.model_fields if hasattr(Project, name)]
    return [
        ProjectView(in_use=UsageView.model_validate(used[row.id]), **{name: getattr(row, name) for name in fields})
        for row in rows
    ]
