"""Teachers: register a diffusers folder of the store or the hub, list, read."""

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api import problems
from api.deps import After, Behind, Creating, Limit, Made, Member, Viewer, page
from api.schemas import Page, TeacherCreate, TeacherView
from service import teachers

router = APIRouter(prefix="/v1/teachers", tags=["teachers"])


@router.post("", status_code=201, response_model=TeacherView, responses=problems.declared(400, 409))
async def register_teacher(body: TeacherCreate, caller: Member, behind: Behind, create: Creating) -> Response:
    """Check a diffusers folder and register it; a model of the hub, at its present commit. Nothing of it is run."""
    async with behind.db.read() as session:
        await teachers.check_source(session, caller.project_id, body.source)
    source, facts = await run_in_threadpool(teachers.look, behind.store, behind.hub, body.source)

    async def make(session: AsyncSession, now: datetime) -> Made:
        teacher = await teachers.register(session, caller.project_id, body.name, source, facts, now)
        return Made(f"/v1/teachers/{teacher.id}", TeacherView.model_validate(teacher))

    return await create(201, make)


@router.get("", responses=problems.declared())
async def list_teachers(caller: Viewer, behind: Behind, limit: Limit = 20, after: After = None) -> Page[TeacherView]:
    """Teachers, the newest first."""
    async with behind.db.read() as session:
        rows = await teachers.page(session, caller.project_id, limit=limit, after=after)
    return page(rows, limit, TeacherView.model_validate, lambda row: row.id)


@router.get("/{teacher}", responses=problems.declared(404))
async def get_teacher(teacher: str, caller: Viewer, behind: Behind) -> TeacherView:
    """One teacher, by id or name."""
    async with behind.db.read() as session:
        return TeacherView.model_validate(await teachers.get(session, caller.project_id, teacher))
