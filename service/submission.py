"""A submission: one question for all that it depends on, and rows for all that it writes, to be inserted together."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import compatibility, datasets, events, outbox, teachers
from service.db import NewRow, insert_together, row_values
from service.errors import InvalidRequest, Pointer
from service.ids import is_id, new_id
from service.outbox import Listener
from service.spec import JobSpec
from service.status import REASONS, Reason, Status, Wish
from service.tables import Dataset, Job, JobMethod, Project, Teacher, Webhook


@dataclass(frozen=True)
class Ground:
    """What a spec stands on."""

    teacher: Teacher
    dataset: Dataset | None
    listeners: list[Listener]
    """The project's webhooks."""


async def ground(session: AsyncSession, project_id: str, spec: JobSpec) -> Ground:
    """Check a spec against what is stored. InvalidRequest names the field and the fix."""
    question = _BY_ID if is_id(spec.teacher, "tea") else _BY_NAME
    asked = {"project_id": project_id, "teacher": spec.teacher}
    found = (await session.execute(question, asked)).all() if "\0" not in spec.teacher else []
    if not found:
        await teachers.find(session, project_id, spec.teacher)  # says which teachers there are
        found = (await session.execute(question, asked)).all()  # it was registered a moment ago
    highest = found[0].max_priority
    if spec.priority > highest:
        detail = f"This project's jobs may ask for {highest} at most; lower it, or have an admin raise max_priority."
        raise InvalidRequest(f"/priority: {detail}", [Pointer("/priority", detail)])
    teacher = found[0].Teacher
    dataset = None if spec.data is None else await datasets.find(session, project_id, spec.data)
    compatibility.check(spec, teacher, dataset)
    mine = [row for row in found if row.Teacher.id == teacher.id and row.id is not None]
    return Ground(teacher, dataset, [Listener(row.id, row.events) for row in mine])


async def prepare(
    session: AsyncSession, project_id: str, spec: JobSpec, now: datetime, traceparent: str | None = None
) -> tuple[Job, list[NewRow]]:
    """A queued job, with every default of its spec written out, and the rows that make it one; nothing is stored yet.

    `traceparent`: the trace that it belongs to. InvalidRequest.
    """
    found = await ground(session, project_id, spec)
    spec = spec.resolved()
    job = Job(
        id=new_id("job"),
        project_id=project_id,
        name=spec.name,
        teacher_id=found.teacher.id,
        teacher=found.teacher.name,
        methods=" ".join(["", *(stage.method.kind for stage in spec.chain()), ""]),
        spec=spec.model_dump(mode="json"),
        max_failures=spec.max_failures,
        total_steps=spec.total_steps(),
        priority=spec.priority,
        workers=spec.resources.workers,
        cpus_per_worker=spec.resources.cpus_per_worker,
        gpus_per_worker=spec.resources.gpus_per_worker,
        traceparent=traceparent,
        created_at=now,
        updated_at=now,
        wish=Wish.RUN,
        wished_at=now,
        status=Status.QUEUED,
        reason=Reason.SUBMITTED,
        last_event=1,
    )
    rows: list[NewRow] = [(Job, row_values(job))]
    for kind in sorted(set(job.methods.split())):
        rows.append((JobMethod, {"project_id": project_id, "job_id": job.id, "status": job.status, "kind": kind}))
    table, event = events.row(job.id, 1, "status", REASONS[job.reason], now, status=job.status, reason=job.reason)
    rows.append((table, event))
    return job, rows + outbox.rows(found.listeners, event, job.name, job.status, job.reason)


async def submit(session: AsyncSession, project_id: str, spec: JobSpec, now: datetime) -> Job:
    """Store a job that nothing else is to be stored with. InvalidRequest."""
    job, rows = await prepare(session, project_id, spec, now)
    await insert_together(session, rows)
    return job


def _question(named: ColumnElement[bool]) -> Select[Teacher, int, str, list[str]]:
    mine = or_(Teacher.project_id == bindparam("project_id"), Teacher.project_id == teachers.SHARED)
    listens = (Webhook.project_id == Project.id) & Webhook.deleted_at.is_(None)
    columns = select(Teacher, Project.max_priority, Webhook.id, Webhook.events)
    joined = columns.select_from(Project).join(Teacher, mine & named).outerjoin(Webhook, listens)
    return joined.where(Project.id == bindparam("project_id"))


_BY_ID = _question(Teacher.id == bindparam("teacher"))
_BY_NAME = _question(Teacher.name == bindparam("teacher"))
