"""Endpoints: serve a student under a name, watch it come up, take it down."""

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from api import problems
from api.deps import After, Behind, Creating, Limit, Made, Member, Services, Viewer, Writing, page
from api.schemas import EndpointCreate, EndpointView, Page
from service import endpoints, students
from service.endpoints import Pair
from service.errors import InvalidRequest, NotFound, Pointer

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


@router.post("", status_code=202, response_model=EndpointView, responses=problems.declared(400, 409))
async def create_endpoint(body: EndpointCreate, caller: Member, behind: Behind, create: Creating) -> Response:
    """Serve a student; `ready` once it is loaded and warm."""

    async def make(session: AsyncSession, now: datetime) -> Made:
        try:
            student = await students.get(session, caller.project_id, body.student)
        except NotFound as error:
            raise InvalidRequest(error.detail, [Pointer("/student", error.detail)]) from error
        pair = await endpoints.create(session, body.name, student, body.with_teacher, now)
        return Made(f"/v1/endpoints/{pair[0].id}", _view(behind, pair))

    return await create(202, make)


@router.get("", responses=problems.declared())
async def list_endpoints(caller: Viewer, behind: Behind, limit: Limit = 20, after: After = None) -> Page[EndpointView]:
    """Endpoints, the newest first."""
    async with behind.db.read() as session:
        rows = await endpoints.page(session, caller.project_id, limit=limit, after=after)
    return page(rows, limit, lambda pair: _view(behind, pair), lambda pair: pair[0].id)


@router.get("/{endpoint}", responses=problems.declared(404))
async def get_endpoint(endpoint: str, caller: Viewer, behind: Behind) -> EndpointView:
    """One endpoint, by id or name."""
    async with behind.db.read() as session:
        return _view(behind, await endpoints.get(session, caller.project_id, endpoint))


@router.delete("/{endpoint}", status_code=202, responses=problems.declared(404))
async def delete_endpoint(endpoint: str, caller: Member, behind: Behind, write: Writing) -> EndpointView:
    """Take an endpoint down; it is `deleting` until it is gone."""
    async with write(endpoint) as (session, now):
        pair = await endpoints.delete(session, caller.project_id, endpoint, now)
        write.target = pair[0].id
    return _view(behind, pair)


def _view(behind: Services, pair: Pair) -> EndpointView:
    row, student = pair
    deleting = row.deleted_at is not None
    return EndpointView(
        id=row.id,
        name=row.name,
        student=student.name,
        student_id=student.id,
        with_teacher=row.with_teacher,
        status="deleting" if deleting else row.status.value,
        detail="It is being taken down." if deleting else row.detail,
        url=f"{behind.settings.resolved_gateway_url()}/v1",
        steps=student.steps,
        num_classes=student.num_classes,
        text=student.text,
        image_size=student.image_size,
        created_at=row.created_at,
    )
