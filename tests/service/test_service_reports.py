"""Observations: numbered, repeatable, refused from the wrong side."""

import asyncio
import math
import random

import pytest
from fake_driver import report, script, student
from service_fixtures import ClockedDatabase
from sqlalchemy import func, select, update

from service import attempts, events, jobs, students, submission
from service.db import Database
from service.errors import AttemptFenced, Conflict, NotFound, Unauthorized
from service.ids import new_id
from service.observations import Report, ReportAnswer
from service.projects import DEFAULT
from service.spec import JobSpec
from service.status import Reason, Status, Wish
from service.tables import Attempt, Job, Log, Metric, Outcome, Sample, Teacher

SPEC = JobSpec.model_validate({"teacher": "digits", "method": {"kind": "progressive"}, "name": "mine"})


async def start(db: Database, digits: Teacher) -> tuple[Job, Attempt]:
    """A job with its first attempt on the cluster."""
    async with db.write() as session:
        now = await db.now(session)
        job = await submission.submit(session, DEFAULT, SPEC, now)
        await jobs.advance(session, job, Status.STARTING, Reason.DISPATCHED, now, attempt=1)
        attempt = await attempts.create(session, job.id, 1, now)
    async with db.read() as session:
        return await jobs.load(session, job.id), attempt


async def send(db: Database, attempt: Attempt, body: Report) -> ReportAnswer:
    async with db.write() as session:
        return await attempts.report(session, attempt.id, body, await db.now(session))


async def test_the_submission_id_follows_from_job_and_number(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    assert attempt.submission_id == job.id.replace("_", "-") + "-a1"
    assert set(attempt.submission_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


async def test_everything_is_stored_once_however_often_it_is_sent(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    said = script(f"jobs/{job.id}", steps=6)
    sure, rng = 0, random.Random(0)
    while sure < len(said):  # overlapping pieces, repeats, lost answers
        start_at = rng.randint(max(0, sure - 4), sure)
        piece = said[start_at : start_at + rng.randint(1, 6)]
        answer = await send(db, attempt, report(*piece, start=start_at + 1))
        sure = max(sure, start_at + len(piece))
        assert answer == ReportAnswer(acknowledged=sure, wish=Wish.RUN)
    async with db.read() as session:
        job = await jobs.load(session, job.id)
        metrics = await jobs.metrics(session, job.id, 0, 100)
        samples = await jobs.samples(session, job.id)
        logs = await events.logs_after(session, job.id, 0, 100)
        left = await students.page(session, DEFAULT, limit=10, job=job.id)
        stored = await attempts.current(session, job)
    assert [row.step for row in metrics] == [1, 2, 3, 4, 5, 6]
    assert [(row.role, row.step) for row in samples] == [("teacher", 0), ("student", 6)]
    assert [(row.seq, row.message, row.attempt) for row in logs] == [
        (1, "half way", 1),
        (2, "judging", 1),
        (3, "exporting", 1),
    ]
    assert [(row.name, row.steps, row.figures["4"]["frechet"]) for row in left] == [("mine-progressive-4", [4], 0.9)]
    assert job.step == 6
    assert stored is not None
    assert (stored.outcome, stored.phase, stored.acknowledged) == (Outcome.DONE, "evaluating", len(said))


async def test_a_gap_is_refused_and_nothing_of_it_kept(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    metric = {"type": "metrics", "step": 1, "stage": 0, "values": {}}
    with pytest.raises(Conflict, match="send from 1 on"):
        await send(db, attempt, report(metric, start=2))
    body = report(metric, {**metric, "step": 2})
    holed = body.model_copy(update={"observations": [body.observations[0], report(metric, start=3).observations[0]]})
    with pytest.raises(Conflict, match="send from 2 on"):
        await send(db, attempt, holed)
    async with db.read() as session:
        assert await jobs.metrics(session, job.id, 0, 10) == []


async def test_the_first_metric_of_a_step_wins(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    metric = {"type": "metrics", "step": 1, "stage": 0}
    await send(db, attempt, report({**metric, "values": {"loss": 1.0}}, {**metric, "values": {"loss": 2.0}}))
    async with db.read() as session:
        assert [row.values for row in await jobs.metrics(session, job.id, 0, 10)] == [{"loss": 1.0}]


async def test_a_student_that_is_reported_again_is_replaced(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    first, again = student(), {**student(), "training_seconds": 9.0, "path": "jobs/x/other"}
    await send(db, attempt, report(first, again, student("progressive-2")))
    async with db.read() as session:
        left = await students.page(session, DEFAULT, limit=10, job=job.id)
    assert [(row.label, row.training_seconds, row.path) for row in left] == [
        ("progressive-2", 3.5, "jobs/x/students/progressive-2"),
        ("progressive-4", 9.0, "jobs/x/other"),
    ]


async def test_what_json_and_postgres_cannot_carry_does_no_harm(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    body = report(
        {"type": "metrics", "step": 1, "stage": 0, "values": {"loss": math.nan, "norm": math.inf, "a\0b": 1.0}},
        {"type": "log", "message": "before\0after"},
        {"type": "failure", "reason": "training_error", "message": "bad\0byte"},
    )
    await send(db, attempt, body)
    async with db.read() as session:
        (metric,) = await jobs.metrics(session, job.id, 0, 10)
        (line,) = await events.logs_after(session, job.id, 0, 10)
    assert metric.values == {"loss": None, "norm": None, "a\ufffdb": 1.0}
    assert line.message == "before\ufffdafter"


async def test_an_ended_attempt_is_fenced_but_its_repeats_are_answered(db: ClockedDatabase, digits: Teacher) -> None:
    _, attempt = await start(db, digits)
    body = report({"type": "phase", "phase": "training"}, {"type": "done"})
    await send(db, attempt, body)
    async with db.write() as session:
        await attempts.end(session, attempt, Reason.EXPORTED, "", await db.now(session))
    assert (await send(db, attempt, body)).acknowledged == 2
    for late in (Report(), report({"type": "log", "message": "late"}, start=3)):
        with pytest.raises(AttemptFenced):
            await send(db, attempt, late)
    with pytest.raises(AttemptFenced):
        async with db.write() as session:
            await attempts.order(session, attempt.id)
    async with db.read() as session:
        assert (await session.execute(select(func.count()).select_from(Log))).scalar_one() == 0


async def test_an_older_attempt_is_fenced(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    async with db.write() as session:
        await session.execute(update(Job).where(Job.id == job.id).values(attempt=2))
    with pytest.raises(AttemptFenced):
        await send(db, attempt, Report())


async def test_the_answer_carries_the_wish(db: ClockedDatabase, digits: Teacher) -> None:
    job, attempt = await start(db, digits)
    assert (await send(db, attempt, Report())).wish is Wish.RUN
    async with db.write() as session:
        await jobs.wish(session, DEFAULT, job.id, Wish.CANCEL, await db.now(session))
    assert (await send(db, attempt, Report())).wish is Wish.CANCEL


async def test_a_sample_keeps_its_id_when_a_later_attempt_shows_it_again(db: ClockedDatabase, digits: Teacher) -> None:
    _, attempt = await start(db, digits)
    sample = {"type": "sample", "step": 5, "stage": 0, "role": "student", "sampling_steps": 4, "path": "jobs/x/a.png"}
    await send(db, attempt, report(sample, sample))
    async with db.read() as session:
        assert len((await session.scalars(select(Sample))).all()) == 1


async def test_tokens_are_good_for_one_attempt(db: ClockedDatabase, digits: Teacher) -> None:
    _, attempt = await start(db, digits)
    async with db.write() as session:
        key = await attempts.signing_key(session)
        assert await attempts.signing_key(session) == key
    token = attempts.token(key, attempt.id)
    attempts.check_token(key, attempt.id, token)
    for wrong in ("", token[:-1], attempts.token(key, new_id("att")), "ü"):
        with pytest.raises(Unauthorized):
            attempts.check_token(key, attempt.id, wrong)


async def test_unknown_attempts_are_not_found(db: ClockedDatabase) -> None:
    for unknown in (new_id("att"), "nope", "\0"):
        with pytest.raises(NotFound):
            async with db.write() as session:
                await attempts.report(session, unknown, Report(), await db.now(session))


async def test_two_senders_at_once_store_everything_once(db: ClockedDatabase, digits: Teacher) -> None:
    _, attempt = await start(db, digits)
    said = [{"type": "metrics", "step": n, "stage": 0, "values": {"loss": 1.0}} for n in range(1, 21)]
    body = report(*said)
    answers = await asyncio.gather(*(send(db, attempt, body) for _ in range(4)))
    assert {answer.acknowledged for answer in answers} == {20}
    async with db.read() as session:
        assert (await session.execute(select(func.count()).select_from(Metric))).scalar_one() == 20


async def test_who_fetched_the_order_last_is_the_writer(db: ClockedDatabase, digits: Teacher) -> None:
    """A dead worker's last report may arrive after its successor began: it must not take the successor's numbers."""
    _, attempt = await start(db, digits)

    async def fetch() -> int:
        async with db.write() as session:
            return (await attempts.order(session, attempt.id))[0].writer

    lines = [{"type": "log", "message": str(n)} for n in range(3)]
    dead = await fetch()
    await send(db, attempt, report(lines[0], writer=dead))
    alive = await fetch()
    with pytest.raises(AttemptFenced, match="is late"):
        await send(db, attempt, report(*lines, writer=dead))
    assert (await send(db, attempt, report(lines[1], start=2, writer=alive))).acknowledged == 2
