"""decide() as a table: rows, what Ray shows, and the time go in; the action comes out."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from service.cluster import RayJob, RayStatus
from service.decide import UNSEEN, Action, Ask, Conclude, Move, Sight, Stop, Submit, decide
from service.settings import Settings
from service.status import ACTIVE, TERMINAL, TRANSITIONS, Reason, Status, Wish
from service.tables import Attempt, Job, Outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = Settings(cancel_deadline=60, stall_deadline=600, max_losses=3)
S, R, W, Out = Status, Reason, Wish, Outcome


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


FORCED = {"stop_asked_at": ago(3), "stop_reason": R.FORCED}
STALLED = {"stop_asked_at": ago(3), "stop_reason": R.STALLED}
OVERDUE = {"stop_asked_at": ago(61)}
PENDING = RayJob("x", RayStatus.PENDING, "")
RUNNING = RayJob("x", RayStatus.RUNNING, "")
ENDED = RayJob("x", RayStatus.SUCCEEDED, "")
KILLED = RayJob("x", RayStatus.FAILED, "exit 137")
UNKNOWN = None


def job(status: Status, wish: Wish = W.RUN, **changes: Any) -> Job:
    values = {"wished_at": ago(5), "attempt": 1, "failures": 0, "max_failures": 0, "losses": 0, "run_seconds": 0.0}
    return Job(status=status, wish=wish, **{**values, "spec": {}, "retries_asked": 0, "retries_done": 0, **changes})


def attempt(**changes: Any) -> Attempt:
    said = {"last_report_at": ago(1), "progressed_at": ago(1)}
    return Attempt(**{"created_at": ago(10), "submitted_at": ago(10), "number": 1, **said, **changes})


SILENT = {"last_report_at": None, "progressed_at": None}
LATE = {**SILENT, "submitted_at": ago(61)}
PREEMPTED = {"asked_at": ago(5), "asked_reason": R.PREEMPTED}
TIMED_OUT = {"asked_at": ago(5), "asked_reason": R.TIME_LIMIT}
LONG_ASKED = {"asked_at": ago(61), "created_at": ago(99)}
MADE_ROOM = Conclude(S.QUEUED, R.PREEMPTED, charge="preemption")
LIMIT = {"spec": {"time_limit_minutes": 10}}
WAITING: list[tuple[Job, Action | None]] = [
    (job(S.QUEUED), None),  # its turn is the queue's matter
    (job(S.QUEUED, not_before=ago(-1)), None),
    (job(S.QUEUED, W.CANCEL), Move(S.CANCELLED, R.USER_CANCEL)),
    (job(S.QUEUED, W.PAUSE), Move(S.PAUSED, R.USER_PAUSE)),
    (job(S.QUEUED, W.CANCEL, not_before=ago(-9)), Move(S.CANCELLED, R.USER_CANCEL)),
    (job(S.PAUSED, W.PAUSE), None),
    (job(S.PAUSED), Move(S.QUEUED, R.USER_RESUME)),
    (job(S.PAUSED, W.CANCEL), Move(S.CANCELLED, R.USER_CANCEL)),
    (job(S.FAILED), None),
    (job(S.FAILED, retries_asked=1), Move(S.QUEUED, R.USER_RETRY)),
    (job(S.FAILED, retries_asked=1, retries_done=1), None),
    (job(S.CANCELLED, retries_asked=2, retries_done=1), Move(S.QUEUED, R.USER_RETRY)),
    (job(S.SUCCEEDED, retries_asked=1), None),
]

STOPPED = {"outcome": Out.STOPPED}
DONE = {"outcome": Out.DONE}
BROKEN = {"outcome": Out.FAILED, "outcome_reason": R.DIVERGED, "outcome_detail": "nan"}
BAD_DATA = {"outcome": Out.FAILED, "outcome_reason": R.DATA_INVALID, "outcome_detail": "0 images"}
ON_CLUSTER: list[tuple[Job, Attempt, Sight, Action | None]] = [
    # nothing to do while it runs as wished
    (job(S.STARTING), attempt(phase="starting"), RUNNING, None),
    (job(S.RUNNING), attempt(phase="training"), RUNNING, None),
    (job(S.FINISHING), attempt(phase="exporting"), RUNNING, None),
    (job(S.STARTING), attempt(**SILENT), PENDING, None),
    # reports move it, whatever Ray shows
    *[
        (job(S.STARTING), attempt(phase=phase), seen, Move(S.RUNNING, R.TRAINING))
        for phase, seen in product(["training", "evaluating", "exporting"], [RUNNING, UNKNOWN, UNSEEN, KILLED])
    ],
    *[
        (job(S.RUNNING), attempt(phase=phase), seen, Move(S.FINISHING, R.EVALUATING))
        for phase, seen in product(["evaluating", "exporting"], [RUNNING, UNKNOWN, UNSEEN])
    ],
    # done is done: whatever Ray shows and whatever is wished by now, step by step
    *[
        (job(status, wish), attempt(**DONE), seen, action)
        for (status, action), wish, seen in product(
            [
                (S.STARTING, Move(S.RUNNING, R.TRAINING)),
                (S.RUNNING, Move(S.FINISHING, R.EVALUATING)),
                (S.FINISHING, Conclude(S.SUCCEEDED, R.EXPORTED)),
            ],
            Wish,
            [RUNNING, ENDED, KILLED, UNKNOWN, UNSEEN],
        )
    ],
    # failures of its own
    (job(S.RUNNING), attempt(**BROKEN), RUNNING, Conclude(S.FAILED, R.DIVERGED, "nan")),
    (job(S.RUNNING), attempt(**BROKEN), UNSEEN, Conclude(S.FAILED, R.DIVERGED, "nan")),
    (job(S.RUNNING, max_failures=1), attempt(**BROKEN), KILLED, Conclude(S.QUEUED, R.DIVERGED, "nan", "failure", 1)),
    (job(S.RUNNING, max_failures=9, failures=3), attempt(**BROKEN), UNSEEN,
     Conclude(S.QUEUED, R.DIVERGED, "nan", "failure", 8)),
    (job(S.RUNNING, max_failures=1, failures=1), attempt(**BROKEN), KILLED, Conclude(S.FAILED, R.DIVERGED, "nan")),
    (job(S.STARTING, max_failures=9), attempt(**BAD_DATA), KILLED, Conclude(S.FAILED, R.DATA_INVALID, "0 images")),
    (job(S.RUNNING, W.CANCEL, max_failures=1), attempt(**BROKEN), KILLED, Conclude(S.CANCELLED, R.USER_CANCEL)),
    # stopped as it was asked to, and what is wished by now
    (job(S.RUNNING, W.CANCEL), attempt(**STOPPED), RUNNING, Conclude(S.CANCELLED, R.USER_CANCEL)),
    (job(S.FINISHING, W.CANCEL), attempt(**STOPPED), UNSEEN, Conclude(S.CANCELLED, R.USER_CANCEL)),
    (job(S.RUNNING, W.PAUSE), attempt(**STOPPED), RUNNING, Conclude(S.PAUSED, R.USER_PAUSE)),
    (job(S.STARTING, W.PAUSE), attempt(**STOPPED), RUNNING, Conclude(S.PAUSED, R.USER_PAUSE)),
    (job(S.FINISHING, W.PAUSE), attempt(**STOPPED), RUNNING, Conclude(S.QUEUED, R.USER_PAUSE)),
    (job(S.RUNNING), attempt(**STOPPED), RUNNING, Conclude(S.QUEUED, R.USER_RESUME)),
    # Ray could not be asked: nothing is concluded
    (job(S.STARTING), attempt(submitted_at=None, **SILENT), UNSEEN, None),
    (job(S.RUNNING, W.CANCEL, wished_at=ago(999)), attempt(), UNSEEN, None),
    # handing over, and handing over again
    (job(S.STARTING), attempt(submitted_at=None, created_at=ago(9999), **SILENT), UNKNOWN, Submit()),
    (job(S.STARTING), attempt(**SILENT), UNKNOWN, Submit()),
    (job(S.STARTING), attempt(submitted_at=None, **SILENT), RUNNING, None),
    (job(S.STARTING, W.CANCEL), attempt(submitted_at=None, **SILENT), UNKNOWN, Conclude(S.CANCELLED, R.USER_CANCEL)),
    (job(S.STARTING, W.PAUSE), attempt(submitted_at=None, **SILENT), UNKNOWN, Conclude(S.PAUSED, R.USER_PAUSE)),
    # lost
    (job(S.STARTING), attempt(), UNKNOWN, Conclude(S.QUEUED, R.CLUSTER_LOST, "", "loss", 1)),
    (job(S.STARTING), attempt(**LATE), UNKNOWN, Conclude(S.QUEUED, R.CLUSTER_LOST, "", "loss", 1)),
    (job(S.RUNNING, losses=1), attempt(), KILLED, Conclude(S.QUEUED, R.DRIVER_DIED, "exit 137", "loss", 2)),
    (job(S.RUNNING), attempt(), ENDED, Conclude(S.QUEUED, R.DRIVER_DIED, "", "loss", 1)),
    (job(S.RUNNING, losses=2), attempt(), KILLED, Conclude(S.QUEUED, R.DRIVER_DIED, "exit 137", "loss", 4)),
    (job(S.FINISHING, losses=3), attempt(), KILLED, Conclude(S.FAILED, R.TOO_MANY_LOSSES, "exit 137")),
    (job(S.RUNNING, W.CANCEL), attempt(), KILLED, Conclude(S.CANCELLED, R.USER_CANCEL)),
    (job(S.RUNNING, W.PAUSE), attempt(), UNKNOWN, Conclude(S.PAUSED, R.USER_PAUSE)),
    # it does not obey
    (job(S.RUNNING, W.CANCEL, wished_at=ago(59)), attempt(created_at=ago(99)), RUNNING, None),
    (job(S.RUNNING, W.CANCEL, wished_at=ago(61)), attempt(created_at=ago(99)), RUNNING, Stop(R.FORCED)),
    (job(S.STARTING, W.PAUSE, wished_at=ago(61)), attempt(created_at=ago(99)), PENDING, Stop(R.FORCED)),
    (job(S.FINISHING, W.PAUSE, wished_at=ago(61)), attempt(created_at=ago(99)), RUNNING, None),
    (job(S.FINISHING, W.CANCEL, wished_at=ago(61)), attempt(created_at=ago(99)), RUNNING, Stop(R.FORCED)),
    # it was stopped by force
    (job(S.RUNNING, W.CANCEL), attempt(**FORCED), RUNNING, None),
    (job(S.RUNNING, W.CANCEL), attempt(**FORCED), KILLED, Conclude(S.CANCELLED, R.FORCED)),
    (job(S.RUNNING, W.PAUSE), attempt(**FORCED), KILLED, Conclude(S.PAUSED, R.FORCED)),
    (job(S.RUNNING), attempt(**FORCED), KILLED, Conclude(S.QUEUED, R.USER_RESUME)),
    (job(S.STARTING, W.CANCEL), attempt(**FORCED | OVERDUE), PENDING, Conclude(S.CANCELLED, R.FORCED)),
    # it gets nowhere
    (job(S.RUNNING), attempt(created_at=ago(9999), progressed_at=ago(599)), RUNNING, None),
    (job(S.RUNNING), attempt(created_at=ago(9999), progressed_at=ago(601)), RUNNING, Stop(R.STALLED)),
    (job(S.RUNNING, spec={"stall_minutes": 20}), attempt(progressed_at=ago(1199)), RUNNING, None),
    (job(S.RUNNING, spec={"stall_minutes": 1}), attempt(progressed_at=ago(61)), RUNNING, Stop(R.STALLED)),
    (job(S.STARTING), attempt(created_at=ago(9999), submitted_at=ago(601), **SILENT), PENDING, Stop(R.STALLED)),
    (job(S.RUNNING), attempt(**STALLED), KILLED, Conclude(S.QUEUED, R.STALLED, "exit 137", "loss", 1)),
    (job(S.RUNNING), attempt(**STALLED | OVERDUE), RUNNING, Conclude(S.QUEUED, R.STALLED, "", "loss", 1)),
    # it makes room for another: no fault of its own, whatever way it ends
    (job(S.RUNNING), attempt(**PREEMPTED), RUNNING, None),
    (job(S.RUNNING), attempt(**PREEMPTED | STOPPED), RUNNING, MADE_ROOM),
    (job(S.RUNNING, losses=3), attempt(**PREEMPTED), KILLED, MADE_ROOM),
    (job(S.STARTING), attempt(submitted_at=None, **PREEMPTED | SILENT), UNKNOWN, MADE_ROOM),
    (job(S.RUNNING), attempt(**PREEMPTED | LONG_ASKED), RUNNING, Stop(R.FORCED)),
    (job(S.FINISHING), attempt(**PREEMPTED | LONG_ASKED), RUNNING, None),
    (job(S.RUNNING), attempt(**PREEMPTED | FORCED), KILLED, MADE_ROOM),
    (job(S.RUNNING), attempt(**PREEMPTED | FORCED | OVERDUE), RUNNING, MADE_ROOM),
    (job(S.RUNNING, W.CANCEL), attempt(**PREEMPTED | STOPPED), RUNNING, Conclude(S.CANCELLED, R.USER_CANCEL)),
    (job(S.RUNNING, W.PAUSE), attempt(**PREEMPTED | STOPPED), RUNNING, Conclude(S.PAUSED, R.USER_PAUSE)),
    (job(S.FINISHING), attempt(**PREEMPTED | DONE), RUNNING, Conclude(S.SUCCEEDED, R.EXPORTED)),
    (job(S.RUNNING, max_failures=0), attempt(**PREEMPTED | BROKEN), RUNNING, Conclude(S.FAILED, R.DIVERGED, "nan")),
    # its time is over
    (job(S.RUNNING, **LIMIT), attempt(created_at=ago(599)), RUNNING, None),
    (job(S.RUNNING, **LIMIT), attempt(created_at=ago(601)), RUNNING, Ask(R.TIME_LIMIT)),
    (job(S.RUNNING, run_seconds=500.0, **LIMIT), attempt(created_at=ago(101)), RUNNING, Ask(R.TIME_LIMIT)),
    (job(S.FINISHING, **LIMIT), attempt(created_at=ago(601)), RUNNING, Ask(R.TIME_LIMIT)),
    (job(S.RUNNING, W.PAUSE, **LIMIT), attempt(created_at=ago(601)), RUNNING, None),
    (job(S.RUNNING, **LIMIT), attempt(**TIMED_OUT), RUNNING, None),
    (job(S.RUNNING, **LIMIT), attempt(**TIMED_OUT | STOPPED), RUNNING, Conclude(S.FAILED, R.TIME_LIMIT)),
    (job(S.RUNNING, **LIMIT), attempt(**TIMED_OUT), KILLED, Conclude(S.FAILED, R.TIME_LIMIT)),
    (job(S.FINISHING, **LIMIT), attempt(**TIMED_OUT | LONG_ASKED), RUNNING, Stop(R.FORCED)),
    (job(S.RUNNING, **LIMIT), attempt(**TIMED_OUT | FORCED), KILLED, Conclude(S.FAILED, R.TIME_LIMIT)),
    (job(S.RUNNING, W.CANCEL, **LIMIT), attempt(**TIMED_OUT | STOPPED), RUNNING, Conclude(S.CANCELLED, R.USER_CANCEL)),
]  # fmt: skip


@pytest.mark.parametrize(("row", "action"), WAITING)
@pytest.mark.parametrize("seen", [UNSEEN, UNKNOWN, KILLED])
def test_off_the_cluster_ray_is_not_needed(row: Job, seen: Sight, action: Action | None) -> None:
    assert decide(row, attempt(), seen, NOW, SETTINGS) == action


@pytest.mark.parametrize(("row", "current", "seen", "action"), ON_CLUSTER)
def test_on_the_cluster(row: Job, current: Attempt, seen: Sight, action: Action | None) -> None:
    assert decide(row, current, seen, NOW, SETTINGS) == action


def test_every_decision_is_a_move_that_the_state_machine_knows() -> None:
    """All statuses, wishes, outcomes, phases and sights, in all combinations."""
    sights: list[Sight] = [UNSEEN, UNKNOWN, RUNNING, KILLED]
    stops: list[dict[str, Any]] = [{}, *({"stop_asked_at": ago(99), "stop_reason": r} for r in (R.FORCED, R.STALLED))]
    asks: list[dict[str, Any]] = [{}, PREEMPTED, TIMED_OUT]
    tried = 0
    for status, wish, outcome, phase, seen, stop, ask, losses in product(
        Status, Wish, [None, *Outcome], [None, "training", "evaluating"], sights, stops, asks, [0, 3]
    ):
        row = job(status, wish, losses=losses, wished_at=ago(99), retries_asked=1)
        current = attempt(outcome=outcome, phase=phase, created_at=ago(99), **stop, **ask)
        action = decide(row, current, seen, NOW, SETTINGS)
        tried += 1
        if isinstance(action, Move | Conclude):
            assert action.to in TRANSITIONS[status]
        if isinstance(action, Conclude | Ask | Stop | Submit):
            assert status in ACTIVE
        if isinstance(action, Conclude) and action.charge == "preemption":
            assert current.asked_reason is R.PREEMPTED
        if status in TERMINAL:
            assert action is None or action == Move(S.QUEUED, R.USER_RETRY)
    assert tried == 8 * 3 * 4 * 3 * 4 * 3 * 3 * 2
