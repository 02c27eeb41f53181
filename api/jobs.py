"""Jobs: submit, validate, list, read, and the four wishes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from api import problems
from api.deps import REPLAYED, After, Behind, Creating, Limit, Made, Member, Viewer, Write, Writing, page
from api.schemas import AttemptView, JobView, Page
from api.validation import MemoryView, Validation
from service import jobs, listing, queue, students, submission, tracing
from service.auth import Caller
from service.spec import JobSpec
from service.status import REASONS, Reason, Status, Wish
from service.tables import Attempt, Job
from service.validate import estimate

router = APIRouter(prefix="/v1", tags=["jobs"])

TraceParent = Annotated[str | None, Header(description="W3C trace context; the job's own spans go below it.")]
Text = Annotated[str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9._-]+$")]


@router.post("/jobs", status_code=202, response_model=JobView, responses=problems.declared(400, 409))
async def submit_job(
    spec: JobSpec, caller: Member, create: Creating, behind: Behind, traceparent: TraceParent = None
) -> Response:
    """Queue a distillation job."""

    async def make(session: AsyncSession, now: datetime) -> Made:
        here = tracing.traceparent(traceparent)
        job, rows = await submission.prepare(session, caller.project_id, spec, now, here)
        return Made(f"/v1/jobs/{job.id}", job_view(job, spec=spec.resolved()), rows)

    with tracing.span("job.submit"):
        answer = await create(202, make)
    if REPLAYED not in answer.headers:
        behind.meters.moved(Status.QUEUED, Reason.SUBMITTED)
    return answer


@router.post("/jobs:validate", responses=problems.declared(400))
async def validate_job(spec: JobSpec, caller: Viewer, behind: Behind) -> Validation:
    """The checks of a submit, with nothing stored: the defaults that would apply, and what the job would cost."""
    async with behind.db.read() as session:
        ground = await submission.ground(session, caller.project_id, spec)
    found = estimate(spec, ground.teacher, ground.dataset, behind.settings)
    return Validation(
        spec=spec.resolved(),
        total_steps=spec.total_steps(),
        students=[steps for stage in spec.chain() for steps in stage.method.student_steps()],
        estimated_memory_bytes=found and found.memory.total,
        memory=found and MemoryView.model_validate(found.memory, from_attributes=True),
        memory_phase=found and found.phase,
        step_flops=found and found.step_flops,
        step_seconds=found and found.step_seconds,
        advice=found.advice if found else [],
    )


@router.get("/jobs", responses=problems.declared())
async def list_jobs(
    caller: Viewer,
    behind: Behind,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[list[Status] | None, Query(description="One or more of them.")] = None,
    teacher: Text = None,
    method: Text = None,
    name: Text = None,
) -> Page[JobView]:
    """Jobs, the newest first."""
    async with behind.db.read() as session:
        found = await listing.page(
            session,
            caller.project_id,
            limit=limit,
            after=after,
            statuses=status or (),
            teacher=teacher,
            method=method,
            name=name,
        )
        left = await students.ids_of_jobs(session, [job.id for job in found])
        etas = await listing.etas(session, found)
    return page(
        found, limit, lambda job: job_view(job, students=left[job.id], eta=etas.get(job.id)), lambda job: job.id
    )


@router.get("/jobs/{job_id}", responses=problems.declared(404))
async def get_job(job_id: str, caller: Viewer, behind: Behind) -> JobView:
    """One job, with its attempts and what it waits for."""
    async with behind.db.read() as session:
        job = await jobs.get(session, caller.project_id, job_id)
        view = await _whole_view(session, job)
        waiting = await queue.waiting(session, job, behind.settings, await behind.db.now(session))
    return view.model_copy(update={"waiting": waiting})


@router.post("/jobs/{job_id}/cancel", status_code=202, responses=problems.declared(404, 409))
async def cancel_job(job_id: str, caller: Member, write: Writing) -> JobView:
    """Ask for the job to stop for good; it saves a checkpoint first."""
    return await _wish(write, caller, job_id, Wish.CANCEL)


@router.post("/jobs/{job_id}/pause", status_code=202, responses=problems.declared(404, 409))
async def pause_job(job_id: str, caller: Member, write: Writing) -> JobView:
    """Ask for the job to save a checkpoint and leave the cluster."""
    return await _wish(write, caller, job_id, Wish.PAUSE)


@router.post("/jobs/{job_id}/resume", status_code=202, responses=problems.declared(404, 409))
async def resume_job(job_id: str, caller: Member, write: Writing) -> JobView:
    """Ask for a paused job to go on from its last checkpoint."""
    return await _wish(write, caller, job_id, Wish.RUN)


@router.post("/jobs/{job_id}/retry", status_code=202, responses=problems.declared(404, 409))
async def retry_job(job_id: str, caller: Member, write: Writing) -> JobView:
    """Ask for a failed or cancelled job to go on from its last checkpoint."""
    async with write(job_id) as (session, now):
        return await _whole_view(session, await jobs.retry(session, caller.project_id, job_id, now))


async def _wish(write: Write, caller: Caller, job_id: str, wanted: Wish) -> JobView:
    async with write(job_id) as (session, now):
        return await _whole_view(session, await jobs.wish(session, caller.project_id, job_id, wanted, now))


async def _whole_view(session: AsyncSession, job: Job) -> JobView:
    left = await students.ids_of_jobs(session, [job.id])
    tries = await jobs.attempts(session, job.id)
    return job_view(job, tries, left[job.id], (await listing.etas(session, [job])).get(job.id))


def job_view(
    job: Job,
    tries: Sequence[Attempt] = (),
    students: Sequence[str] = (),
    eta: float | None = None,
    spec: JobSpec | None = None,
) -> JobView:
    """`spec`: the job's, resolved, where it is at hand; else it is read from the row."""
    said = job.detail.strip().splitlines()
    spec = spec or JobSpec.model_validate(job.spec)
    return JobView(
        id=job.id,
        name=job.name,
        status=job.status,
        reason=job.reason,
        detail=f"{REASONS[job.reason]} ({said[-1][:300]})" if said else REASONS[job.reason],
        wish=job.wish,
        priority=job.priority,
        failures=job.failures,
        losses=job.losses,
        preemptions=job.preemptions,
        teacher=job.teacher,
        data=spec.data,
        methods=job.methods.split(),
        spec=spec,
        step=job.step,
        total_steps=job.total_steps,
        progress=min(1.0, job.step / job.total_steps),
        eta_seconds=eta,
        created_at=job.created_at,
        requeued_at=job.requeued_at,
        updated_at=job.updated_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempts=[AttemptView.model_validate(attempt) for attempt in tries],
        students=list(students),
    )
