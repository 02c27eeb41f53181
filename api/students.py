"""Students: the registry of what jobs left, their grids, and their folders as archives."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api import problems
from api.deps import After, Behind, Limit, Viewer, page
from api.observations import PNG
from api.schemas import Page, StudentView
from service import students
from service.errors import NotFound
from service.tables import Student

router = APIRouter(prefix="/v1/students", tags=["students"])

Text = Annotated[str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9._-]+$")]
ZIP: dict[int | str, dict[str, Any]] = {
    200: {"description": "A plain diffusers folder, zipped.", "content": {"application/zip": {}}}
}


@router.get("", responses=problems.declared())
async def list_students(
    caller: Viewer,
    behind: Behind,
    limit: Limit = 20,
    after: After = None,
    job: Text = None,
    teacher: Text = None,
    method: Text = None,
    name: Text = None,
) -> Page[StudentView]:
    """Students, the newest first."""
    async with behind.db.read() as session:
        rows = await students.page(
            session,
            caller.project_id,
            limit=limit,
            after=after,
            job=job,
            teacher=teacher,
            method=method,
            name=name,
        )
    return page(rows, limit, _view, lambda row: row.id)


@router.get("/{student}", responses=problems.declared(404))
async def get_student(student: str, caller: Viewer, behind: Behind) -> StudentView:
    """One student, by id or name."""
    async with behind.db.read() as session:
        return _view(await students.get(session, caller.project_id, student))


@router.get("/{student}/grid", response_class=Response, responses={**problems.declared(404), **PNG})
async def get_student_grid(student: str, caller: Viewer, behind: Behind) -> Response:
    """The teacher's row above the student's rows, same seeds, as PNG."""
    async with behind.db.read() as session:
        row = await students.get(session, caller.project_id, student)
    return Response(await run_in_threadpool(behind.store.read, row.grid), media_type="image/png")


@router.get("/{student}/archive", response_class=StreamingResponse, responses={**problems.declared(404), **ZIP})
async def get_student_archive(student: str, caller: Viewer, behind: Behind) -> StreamingResponse:
    """The student's folder as a ZIP."""
    async with behind.db.read() as session:
        row = await students.get(session, caller.project_id, student)
    if not await run_in_threadpool(behind.store.is_folder, row.path):
        raise NotFound(f"The student's folder {row.path} is no longer in the artifact store.")
    headers = {"Content-Disposition": f'attachment; filename="{row.name}.zip"'}
    return StreamingResponse(behind.store.zip(row.path), media_type="application/zip", headers=headers)


def _view(row: Student) -> StudentView:
    fields = {name: getattr(row, name) for name in StudentView.model_fields if hasattr(row, name)}
    urls = {"grid_url": f"/v1/students/{row.id}/grid", "archive_url": f"/v1/students/{row.id}/archive"}
    return StudentView.model_validate({**fields, **urls})
