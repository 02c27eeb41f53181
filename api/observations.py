"""What a job has shown so far: events and logs (also as streams), metrics, sample grids, checkpoints."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api import problems, stream
from api.deps import AfterNumber, Behind, Limit, Viewer, page
from api.schemas import CheckpointView, EventView, LogView, MetricView, Page, SampleView
from service import events, jobs
from service.status import TERMINAL
from service.tables import Sample

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["observations"])

PNG: dict[int | str, dict[str, Any]] = {200: {"description": "A PNG.", "content": {"image/png": {}}}}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page; or, for `Accept: text/event-stream`, every row as it comes, resumed by Last-Event-ID.",
        "content": {stream.MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}


@router.get("/events", response_model=Page[EventView], responses={**problems.declared(404), **STREAM})
async def list_events(
    job_id: str, request: Request, caller: Viewer, behind: Behind, limit: Limit = 100, after: AfterNumber = 0
) -> Page[EventView] | StreamingResponse:
    """What happened to the job, in order."""

    async def fetch(number: int, limit: int = 500) -> tuple[Sequence[tuple[int, EventView]], bool]:
        async with behind.db.read() as session:
            over = (await jobs.get(session, caller.project_id, job_id)).status in TERMINAL
            found = await events.events_after(session, job_id, number, limit)
        return [(row.seq, EventView.model_validate(row)) for row in found], over

    if stream.wanted(request):
        await fetch(0, 1)  # a job that is not there is a 404, not an empty stream
        begin = stream.start(request, after)
        return stream.stream("event", job_id, fetch, begin, behind.watch, behind.meters.sse_clients)
    rows, _ = await fetch(after, limit + 1)
    return page(rows, limit, lambda row: row[1], lambda row: row[0])


@router.get("/logs", response_model=Page[LogView], responses={**problems.declared(404), **STREAM})
async def list_logs(
    job_id: str, request: Request, caller: Viewer, behind: Behind, limit: Limit = 100, after: AfterNumber = 0
) -> Page[LogView] | StreamingResponse:
    """The job's log lines, over all its attempts, in order."""

    async def fetch(number: int, limit: int = 500) -> tuple[Sequence[tuple[int, LogView]], bool]:
        async with behind.db.read() as session:
            over = (await jobs.get(session, caller.project_id, job_id)).status in TERMINAL
            found = await events.logs_after(session, job_id, number, limit)
        return [(row.seq, LogView.model_validate(row)) for row in found], over

    if stream.wanted(request):
        await fetch(0, 1)
        begin = stream.start(request, after)
        return stream.stream("log", job_id, fetch, begin, behind.watch, behind.meters.sse_clients)
    rows, _ = await fetch(after, limit + 1)
    return page(rows, limit, lambda row: row[1], lambda row: row[0])


@router.get("/metrics", responses=problems.declared(404))
async def list_metrics(
    job_id: str, caller: Viewer, behind: Behind, limit: Limit = 100, after: AfterNumber = 0
) -> Page[MetricView]:
    """Figures by optimizer step; `after` is a step, so that polling with the last one seen gives only new ones."""
    async with behind.db.read() as session:
        await jobs.get(session, caller.project_id, job_id)
        rows = await jobs.metrics(session, job_id, after, limit)
    return page(rows, limit, MetricView.model_validate, lambda row: row.step)


@router.get("/samples", responses=problems.declared(404))
async def list_samples(job_id: str, caller: Viewer, behind: Behind) -> Page[SampleView]:
    """The preview grids by step, the teacher's first."""
    async with behind.db.read() as session:
        await jobs.get(session, caller.project_id, job_id)
        rows = await jobs.samples(session, job_id)
    return Page(data=[_sample_view(row) for row in rows], has_more=False, next=None)


@router.get("/samples/{sample_id}/image", response_class=Response, responses={**problems.declared(404), **PNG})
async def get_sample_image(job_id: str, sample_id: str, caller: Viewer, behind: Behind) -> Response:
    """A preview grid as PNG; it never changes."""
    async with behind.db.read() as session:
        job = await jobs.get(session, caller.project_id, job_id)
        row = await jobs.sample(session, job.id, sample_id)
    png = await run_in_threadpool(behind.store.read, row.path)
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=31536000, immutable"})


@router.get("/checkpoints", responses=problems.declared(404))
async def list_checkpoints(job_id: str, caller: Viewer, behind: Behind) -> Page[CheckpointView]:
    """The checkpoints that were made, by step."""
    async with behind.db.read() as session:
        await jobs.get(session, caller.project_id, job_id)
        rows = await jobs.checkpoints(session, job_id)
    return Page(data=[CheckpointView.model_validate(row) for row in rows], has_more=False, next=None)


def _sample_view(row: Sample) -> SampleView:
    return SampleView.model_validate(
        {
            "id": row.id,
            "step": row.step,
            "stage": row.stage,
            "role": row.role,
            "sampling_steps": row.sampling_steps,
            "at": row.at,
            "url": f"/v1/jobs/{row.job_id}/samples/{row.id}/image",
        }
    )
