"""The job's own side of the API: its order, and its reports. Each attempt's token is good for that attempt alone."""

from fastapi import APIRouter

from api import problems
from api.deps import AttemptId, Behind
from service import attempts, datasets, teachers
from service.observations import AttemptOrder, DatasetOrder, Done, Failure, Phase, Report, ReportAnswer, Stopped
from service.spec import JobSpec

router = APIRouter(prefix="/v1/attempts/{attempt_id}", tags=["attempts"])


@router.get("/", include_in_schema=False)  # httpx writes its base URL with the slash
@router.get("", responses=problems.declared(404, 409))
async def get_attempt_order(attempt: AttemptId, behind: Behind) -> AttemptOrder:
    """All that the driver needs to run the attempt; 409 `attempt_fenced` when it must not be run any more.

    Whoever fetched it last writes the attempt's reports; those of earlier ones are refused.
    """
    async with behind.db.write() as session:
        row, job = await attempts.order(session, attempt)
        teacher = await teachers.get(session, job.project_id, job.teacher_id)
        spec = JobSpec.model_validate(job.spec)
        data = None if spec.data is None else await datasets.get(session, job.project_id, spec.data)
    return AttemptOrder(
        attempt_id=row.id,
        job_id=job.id,
        number=row.number,
        spec=spec,
        teacher=job.teacher,
        teacher_source=teacher.source,
        teacher_sha256=teacher.sha256,
        dataset=None if data is None else DatasetOrder.model_validate(data, from_attributes=True),
        store=behind.store.url,
        folder=f"jobs/{job.id}",
        writer=row.writer,
        acknowledged=row.acknowledged,
        wish=attempts.wish(row, job),
    )


@router.post("/reports", responses=problems.declared(400, 404, 409))
async def report(attempt: AttemptId, report: Report, behind: Behind) -> ReportAnswer:
    """Store a report's new observations and carry the user's wish back; a repeat is harmless."""
    async with behind.db.write() as session:
        answer = await attempts.report(session, attempt, report, await behind.db.now(session))
    if any(isinstance(seen, Phase | Done | Failure | Stopped) for seen in report.observations):
        behind.reconciler.nudge()
    return answer
