"""What must be true when the dust has settled: nothing lost, nothing doubled, nothing stuck, all of it once and right.

`read` takes a copy of everything that there is to see; `complaints` judges the copy.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from chaos_driver import Run
from sqlalchemy import select

from service import audit
from service.db import Database
from service.status import ACTIVE, TERMINAL, TRANSITIONS, Status
from service.tables import Attempt, AuditEntry, Event, Job, Metric, Student

Rows = list[dict[str, Any]]


@dataclass
class State:
    """The database's rows, and what users, drivers and the cluster know."""

    jobs: Rows
    attempts: Rows
    events: Rows
    metrics: Rows
    students: Rows
    audit: Rows
    accepted: dict[str, str]
    """Job id that the API answered, by Idempotency-Key; each job's name is its key."""
    runs: list[Run]
    alive: list[str] = field(default_factory=list)
    """Submission ids of drivers that the cluster still runs."""
    chain: str | None = None
    """What is wrong with the audit log's chain."""
    figure: Callable[[str, int], float] | None = None
    """The loss that a job must have reported of a step; None: any, but the same for all jobs."""


async def read(db: Database, **seen: Any) -> State:
    """A copy of the rows, with `seen` beside them."""
    async with db.read() as session:
        rows = {
            name: [dict(row) for row in (await session.execute(select(table.__table__))).mappings()]
            for name, table in (
                ("jobs", Job),
                ("attempts", Attempt),
                ("events", Event),
                ("metrics", Metric),
                ("students", Student),
                ("audit", AuditEntry),
            )
        }
        seen["chain"] = (await audit.verify(session)).problem
    return State(**rows, **seen)


def complaints(state: State) -> list[str]:
    """A sentence for each thing that is wrong."""
    found = [*_lost_or_doubled(state), *_run_twice(state), *_left_behind(state), *_metrics(state)]
    events, attempts = _by_job(state.events, "seq"), _by_job(state.attempts, "number")
    students = Counter(row["job_id"] for row in state.students)
    for job in state.jobs:
        found += _stuck(job)
        found += _events(job, events[job["id"]])
        found += _attempts(job, attempts[job["id"]])
        if students[job["id"]] != (job["status"] is Status.SUCCEEDED) and job["status"] is not Status.CANCELLED:
            found.append(f"{job['id']} is {job['status']} and has {students[job['id']]} students")
    return found


def _by_job(rows: Rows, order: str) -> dict[str, Rows]:
    grouped: dict[str, Rows] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[order]):
        grouped[row["job_id"]].append(row)
    return grouped


def _lost_or_doubled(state: State) -> Iterator[str]:
    names = Counter(job["name"] for job in state.jobs)
    ids = {job["id"]: job["name"] for job in state.jobs}
    for key, job_id in state.accepted.items():
        if ids.get(job_id) != key:
            yield f"lost: {job_id}, accepted under {key}, does not exist"
        if names[key] > 1:
            yield f"doubled: {key} made {names[key]} jobs"
    submitted = Counter(entry["target"] for entry in state.audit if entry["action"] == "job.submit")
    for job_id, name in ids.items():
        if submitted[job_id] != 1:
            yield f"{name} was submitted once, and the audit log has {submitted[job_id]} entries"
    if state.chain is not None:
        yield f"audit log: {state.chain}"
    for name in names.keys() - state.accepted.keys():
        yield f"{name} exists, and nobody was told so"


def _run_twice(state: State) -> Iterator[str]:
    by_job: dict[str, list[Run]] = defaultdict(list)
    for run in state.runs:
        by_job[run.job_id].append(run)
    for job_id, runs in by_job.items():
        runs.sort(key=lambda run: run.started)
        latest = runs[0]
        for run in runs[1:]:
            if latest.ended is None or latest.ended > run.started:
                for_how_long = (latest.ended or math.inf) - run.started
                pair = f"{latest.attempt_id} and {run.attempt_id}"
                yield f"run twice: {job_id} by {pair} at once for {for_how_long:.2f} s or less"
            if run.ended is None or (latest.ended is not None and run.ended > latest.ended):
                latest = run


def _left_behind(state: State) -> Iterator[str]:
    over = {job["id"] for job in state.jobs if job["status"] not in ACTIVE}
    job_of = {attempt["submission_id"]: attempt["job_id"] for attempt in state.attempts}
    for submission_id in state.alive:
        if job_of.get(submission_id) in over or submission_id not in job_of:
            yield f"left behind: {submission_id} still runs, though its job does not"


def _stuck(job: dict[str, Any]) -> Iterator[str]:
    if job["status"] not in TERMINAL:
        yield f"stuck: {job['id']} is {job['status']} ({job['reason']}), wish {job['wish']}"
    elif job["status"] is Status.FAILED:
        yield f"{job['id']} failed, which no job here may: {job['reason']} {job['detail']}"
    if (job["finished_at"] is not None) != (job["status"] in TERMINAL):
        yield f"{job['id']} is {job['status']} and was finished at {job['finished_at']}"


def _metrics(state: State) -> Iterator[str]:
    steps = _by_job(state.metrics, "step")
    agreed: dict[int, float] = {}
    for job in state.jobs:
        rows = steps[job["id"]]
        if [row["step"] for row in rows] != list(range(1, len(rows) + 1)):
            yield f"{job['id']} has not every step once: {[row['step'] for row in rows]}"
        if job["status"] is Status.SUCCEEDED and len(rows) != job["total_steps"]:
            yield f"{job['id']} has {len(rows)} of {job['total_steps']} steps"
        for row in rows:
            step, given = row["step"], row["values"].get("loss")
            expected = state.figure(job["id"], step) if state.figure else agreed.setdefault(step, given)
            if given != expected:
                yield f"{job['id']} has a wrong figure at step {step}: {given}, not {expected}"


def _events(job: dict[str, Any], rows: Rows) -> Iterator[str]:
    if [row["seq"] for row in rows] != list(range(1, job["last_event"] + 1)):
        yield f"{job['id']} has events {[row['seq'] for row in rows]}, and the last one is {job['last_event']}"
    moves = [row for row in rows if row["type"] == "status"]
    if not moves or moves[0]["status"] is not Status.QUEUED:
        yield f"{job['id']} did not begin in the queue"
        return
    for before, after in pairwise(moves):
        if after["status"] not in TRANSITIONS[before["status"]] or after["data"].get("from") != before["status"]:
            yield f"{job['id']} went from {before['status']} to {after['status']}, event {after['seq']}"
    if moves[-1]["status"] is not job["status"]:
        yield f"{job['id']} is {job['status']}, and its last event says {moves[-1]['status']}"


def _attempts(job: dict[str, Any], rows: Rows) -> Iterator[str]:
    if [row["number"] for row in rows] != list(range(1, job["attempt"] + 1)):
        yield f"{job['id']} has attempts {[row['number'] for row in rows]}, and the last one is {job['attempt']}"
    for row in rows[: len(rows) - (job["status"] in ACTIVE)]:
        if row["ended_at"] is None or row["reason"] is None:
            yield f"{job['id']}: attempt {row['number']} was never closed"
