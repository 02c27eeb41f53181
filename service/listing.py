"""Pages of jobs by what their users look for, each read from the end of an index however many jobs there are."""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Select, func, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from service.ids import is_id
from service.status import Status, Wish
from service.tables import Job, JobMethod, Metric, Teacher

PACE_STEPS = 50
"""Steps from which the pace of a job is taken."""


async def page(
    session: AsyncSession,
    project_id: str,
    *,
    limit: int,
    after: str | None = None,
    statuses: Collection[Status] = (),
    teacher: str | None = None,
    method: str | None = None,
    name: str | None = None,
) -> Sequence[Job]:
    """The newest first, starting below the id `after`; up to `limit` + 1, so that one sees whether more follow.

    `teacher` is a name or an id.
    """
    filters: list[ColumnElement[bool]] = []
    if teacher is not None and is_id(teacher, "tea"):
        filters.append(Job.teacher_id == teacher)
        teacher = await session.scalar(select(Teacher.name).where(Teacher.id == teacher))
        if teacher is None:
            return []
    query = statement(project_id, limit + 1, after, statuses, teacher, method, name, filters)
    return (await session.scalars(query)).all()


def statement(
    project_id: str,
    count: int,
    after: str | None,
    statuses: Collection[Status],
    teacher: str | None,
    method: str | None,
    name: str | None,
    filters: Sequence[ColumnElement[bool]] = (),
) -> Select[Job]:
    """The newest `count` jobs that fit.

    Each index ends in (status, id), so its newest entries lie together for one status only. Hence one short read for
    each status, and a merge of their ids: the database then never sorts what it does not return.
    """
    wheres = [Job.project_id == project_id, *filters]
    if teacher is not None:
        wheres.append(Job.teacher == teacher)
    if name is not None:
        wheres.append(Job.name == name)

    def ids(status: Status) -> Select[str]:
        mine = (JobMethod.project_id == project_id) & (JobMethod.kind == method) & (JobMethod.status == status)
        if method is not None and len(wheres) == 1:
            found = select(JobMethod.job_id.label("id")).where(mine)
        else:
            found = select(Job.id.label("id")).where(*wheres, Job.status == status)
            found = found if method is None else found.join(JobMethod, (JobMethod.job_id == Job.id) & mine)
        id = found.selected_columns["id"]
        found = found if after is None else found.where(id < after)
        newest = found.order_by(id.desc()).limit(count).subquery()
        return select(newest.c.id)

    merged = union_all(*(ids(status) for status in sorted(statuses or Status))).subquery()
    newest = select(merged.c.id).order_by(merged.c.id.desc()).limit(count).subquery()
    return select(Job).join(newest, newest.c.id == Job.id).order_by(Job.id.desc())


async def etas(session: AsyncSession, jobs: Sequence[Job]) -> dict[str, float]:
    """Seconds until training is over, at the pace of the last steps, of those jobs where that is known."""
    running = {job.id: job for job in jobs if job.status is Status.RUNNING and job.wish is Wish.RUN}
    if not running:
        return {}
    steps = select(Metric.step).where(Metric.job_id == Job.id).limit(1).correlate(Job)
    early = steps.order_by(Metric.step.desc()).offset(PACE_STEPS - 1).scalar_subquery()
    first = steps.order_by(Metric.step).scalar_subquery()
    edges = select(Job.id, func.coalesce(early, first), Job.step).where(Job.id.in_(running))
    wanted = [(job_id, step) for job_id, *ends in (await session.execute(edges)).tuples() for step in ends if step]
    rows = select(Metric.job_id, Metric.step, Metric.at).where(tuple_(Metric.job_id, Metric.step).in_(wanted))
    seen: dict[str, list[tuple[int, float]]] = {}
    for job_id, step, at in (await session.execute(rows.order_by(Metric.step))).tuples():
        seen.setdefault(job_id, []).append((step, at.timestamp()))
    return {
        job_id: max(0.0, (running[job_id].total_steps - end) * (end_at - start_at) / (end - start))
        for job_id, ((start, start_at), (end, end_at)) in _pairs(seen)
        if end_at > start_at
    }


def _pairs(
    seen: dict[str, list[tuple[int, float]]],
) -> list[tuple[str, tuple[tuple[int, float], tuple[int, float]]]]:
    return [(job_id, (points[0], points[1])) for job_id, points in seen.items() if len(points) == 2]
