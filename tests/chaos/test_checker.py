"""The checker complains of everything that it is there for: each case spoils one thing of a state without fault."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from chaos_driver import Run, loss
from checker import State, complaints

from service.status import Reason, Status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = [Status.QUEUED, Status.STARTING, Status.RUNNING, Status.QUEUED, Status.STARTING, Status.RUNNING]
MOVES = [*LIFE, Status.FINISHING, Status.SUCCEEDED]


def job(name: str) -> State:
    """A job that lost its first driver and ended well with the second."""
    job_id = f"job_{name}"
    events = [
        {"job_id": job_id, "seq": seq, "type": "status", "status": status, "data": {"from": before}}
        for seq, (before, status) in enumerate(zip([None, *MOVES], MOVES, strict=False), start=1)
    ]
    attempts = [
        {"id": f"att_{name}{n}", "job_id": job_id, "number": n, "submission_id": f"{name}-a{n}", "ended_at": NOW}
        for n in (1, 2)
    ]
    row = {"id": job_id, "name": name, "status": Status.SUCCEEDED, "reason": Reason.EXPORTED, "detail": ""}
    row |= {"wish": "run", "last_event": len(MOVES), "attempt": 2, "finished_at": NOW, "total_steps": 3}
    return State(
        jobs=[row],
        attempts=[attempt | {"reason": Reason.EXPORTED} for attempt in attempts],
        events=events,
        metrics=[{"job_id": job_id, "step": n, "values": {"loss": loss(job_id, n)}} for n in (1, 2, 3)],
        students=[{"job_id": job_id}],
        audit=[{"action": "job.submit", "target": job_id}],
        accepted={name: job_id},
        runs=[Run(job_id, f"att_{name}1", 0, 10), Run(job_id, f"att_{name}2", 11, 20)],
        figure=loss,
    )


@pytest.fixture
def state() -> State:
    one, other = job("one"), job("other")
    lists = ("jobs", "attempts", "events", "metrics", "students", "audit", "runs")
    joined: dict[str, Any] = {name: getattr(one, name) + getattr(other, name) for name in lists}
    return State(**joined, accepted=one.accepted | other.accepted, figure=loss)


def test_nothing_is_wrong_with_a_state_without_fault(state: State) -> None:
    assert complaints(state) == []


def delete_a_job(state: State) -> None:
    state.jobs.pop()


def make_a_job_twice(state: State) -> None:
    again = deepcopy(job("one"))
    state.jobs.append(again.jobs[0] | {"id": "job_again"})


def make_a_job_of_nobody(state: State) -> None:
    del state.accepted["one"]


def two_drivers_at_once(state: State) -> None:
    state.runs[1].started = 9


def a_driver_that_never_ended(state: State) -> None:
    state.runs[0].ended = None


def a_driver_left_behind(state: State) -> None:
    state.alive.append("one-a1")


def a_stuck_job(state: State) -> None:
    state.jobs[0] |= {"status": Status.RUNNING, "finished_at": None}


def a_failed_job(state: State) -> None:
    state.jobs[0]["status"] = Status.FAILED


def an_end_without_its_time(state: State) -> None:
    state.jobs[0]["finished_at"] = None


def a_metric_too_many(state: State) -> None:
    state.metrics.append({"job_id": "job_one", "step": 4, "values": {"loss": loss("job_one", 4)}})


def a_metric_twice(state: State) -> None:
    state.metrics.append(deepcopy(state.metrics[0]))


def a_metric_missing(state: State) -> None:
    state.metrics.pop(1)


def a_metric_of_another_job(state: State) -> None:
    state.metrics[0]["values"] = {"loss": loss("job_other", 1)}


def a_gap_between_events(state: State) -> None:
    state.events.pop(3)


def an_illegal_move(state: State) -> None:
    state.events[2] |= {"status": Status.FINISHING}
    state.events[3]["data"] = {"from": Status.FINISHING}


def a_last_event_that_says_something_else(state: State) -> None:
    state.events[7] |= {"status": Status.FAILED}


def a_gap_between_attempts(state: State) -> None:
    state.attempts[0]["number"] = 3


def an_attempt_that_was_not_closed(state: State) -> None:
    state.attempts[1]["ended_at"] = None


def a_student_twice(state: State) -> None:
    state.students.append({"job_id": "job_one"})


def a_submission_without_its_audit_entry(state: State) -> None:
    state.audit.pop()


def a_broken_chain(state: State) -> None:
    state.chain = "Entry 3 is missing"


def no_student(state: State) -> None:
    state.students.pop()


SPOILT = {
    delete_a_job: "lost: job_other",
    make_a_job_twice: "doubled: one made 2 jobs",
    make_a_job_of_nobody: "one exists, and nobody was told so",
    two_drivers_at_once: "run twice: job_one by att_one1 and att_one2 at once for 1.00 s",
    a_driver_that_never_ended: "run twice: job_one",
    a_driver_left_behind: "left behind: one-a1",
    a_stuck_job: "stuck: job_one is running",
    a_failed_job: "job_one failed",
    an_end_without_its_time: "job_one is succeeded and was finished at None",
    a_metric_too_many: "job_one has 4 of 3 steps",
    a_metric_twice: "job_one has not every step once",
    a_metric_missing: "job_one has not every step once",
    a_metric_of_another_job: "job_one has a wrong figure at step 1",
    a_gap_between_events: "job_one has events [1, 2, 3, 5, 6, 7, 8]",
    an_illegal_move: "job_one went from starting to finishing",
    a_last_event_that_says_something_else: "job_one is succeeded, and its last event says failed",
    a_gap_between_attempts: "job_one has attempts [2, 3]",
    an_attempt_that_was_not_closed: "job_one: attempt 2 was never closed",
    a_student_twice: "job_one is succeeded and has 2 students",
    a_submission_without_its_audit_entry: "other was submitted once, and the audit log has 0 entries",
    a_broken_chain: "audit log: Entry 3 is missing",
    no_student: "job_other is succeeded and has 0 students",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_each_fault_is_found(state: State, spoil: Callable[[State], None]) -> None:
    spoil(state)
    found = complaints(state)
    assert any(complaint.startswith(SPOILT[spoil]) for complaint in found), found


def test_without_a_known_figure_all_jobs_must_agree(state: State) -> None:
    state.figure = None
    assert any("wrong figure" in complaint for complaint in complaints(state))
    for row in state.metrics:
        row["values"] = {"loss": row["step"]}
    assert complaints(state) == []
