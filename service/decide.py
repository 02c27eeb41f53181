"""What is to be done about a job next: a pure function of its rows, of what Ray shows, and of the time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal

from service.cluster import RayJob
from service.settings import Settings
from service.status import ACTIVE, TERMINAL, Reason, Status, Wish
from service.tables import Attempt, Job, Outcome

RESUBMIT_WINDOW = 60.0
"""Seconds after its submission in which an attempt that Ray does not know and that never reported is submitted anew."""

UNMENDED = frozenset({Reason.TEACHER_INVALID, Reason.DATA_INVALID})
"""Failures that another attempt would only meet again."""


class Unseen(Enum):
    """Ray could not be asked, so nothing may be concluded from its silence."""

    UNSEEN = "unseen"


UNSEEN = Unseen.UNSEEN
Sight = RayJob | None | Unseen
"""What Ray shows of an attempt: its job, nothing (Ray answered and does not know it), or `UNSEEN`."""


@dataclass(frozen=True)
class Move:
    """Change the status; an attempt goes on."""

    to: Status
    reason: Reason


@dataclass(frozen=True)
class Submit:
    """Hand the current attempt to Ray."""


@dataclass(frozen=True)
class Ask:
    """Have the current attempt save and stop: the answer to its next report says so."""

    reason: Reason


@dataclass(frozen=True)
class Stop:
    """Have Ray stop the current attempt by force."""

    reason: Reason


@dataclass(frozen=True)
class Conclude:
    """End the current attempt and change the status.

    `charge`: what of the job's counts goes up; `delay`: seconds until it may leave the queue.
    """

    to: Status
    reason: Reason
    detail: str = ""
    charge: Literal["nothing", "loss", "failure", "preemption"] = "nothing"
    delay: float = 0.0


Action = Move | Submit | Ask | Stop | Conclude


def decide(job: Job, attempt: Attempt | None, seen: Sight, now: datetime, settings: Settings) -> Action | None:
    """The next thing to do about `job`, whose newest attempt is `attempt`; None when there is nothing.

    A job that waits in the queue is not this function's: `service.queue` admits it.
    """
    if job.status in ACTIVE:
        assert attempt is not None, "an active job has an attempt, written in the same transaction"
        return _of_active(job, attempt, seen, now, settings)
    if job.status in TERMINAL:
        again = job.status is not Status.SUCCEEDED and job.retries_asked > job.retries_done
        return Move(Status.QUEUED, Reason.USER_RETRY) if again else None
    if job.wish is Wish.CANCEL:
        return Move(Status.CANCELLED, Reason.USER_CANCEL)
    if job.status is Status.PAUSED:
        return Move(Status.QUEUED, Reason.USER_RESUME) if job.wish is Wish.RUN else None
    return Move(Status.PAUSED, Reason.USER_PAUSE) if job.wish is Wish.PAUSE else None


def _of_active(job: Job, attempt: Attempt, seen: Sight, now: datetime, settings: Settings) -> Action | None:
    if attempt.outcome is not None:
        return _of_outcome(job, attempt, attempt.outcome)
    if (move := _of_phase(job, attempt)) is not None:
        return move
    if isinstance(seen, Unseen):
        return None
    asked = job.wish is not Wish.RUN or attempt.asked_reason is not None
    if attempt.submitted_at is None and asked and seen is None:
        return _as_asked(job, attempt, _wished_reason(job))
    if seen is None:
        return _of_unknown(job, attempt, now, settings)
    if seen.over:
        return _of_dead(job, attempt, Reason.DRIVER_DIED, seen.message, settings)
    return _of_alive(job, attempt, now, settings)


def _of_outcome(job: Job, attempt: Attempt, outcome: Outcome) -> Action:
    """The attempt said itself how it ended; that is believed before anything that Ray shows."""
    if outcome is Outcome.DONE:
        return _towards_success(job)
    if outcome is Outcome.STOPPED:
        return _as_asked(job, attempt, _wished_reason(job))
    if job.wish is Wish.CANCEL:
        return Conclude(Status.CANCELLED, Reason.USER_CANCEL)
    reason, detail = attempt.outcome_reason or Reason.TRAINING_ERROR, attempt.outcome_detail or ""
    if job.failures < job.max_failures and reason not in UNMENDED:
        return Conclude(Status.QUEUED, reason, detail, charge="failure", delay=_back_off(job.failures))
    return Conclude(Status.FAILED, reason, detail)


def _towards_success(job: Job) -> Action:
    if job.status is Status.STARTING:
        return Move(Status.RUNNING, Reason.TRAINING)
    if job.status is Status.RUNNING:
        return Move(Status.FINISHING, Reason.EVALUATING)
    return Conclude(Status.SUCCEEDED, Reason.EXPORTED)


def _of_phase(job: Job, attempt: Attempt) -> Move | None:
    trains = attempt.phase in ("training", "evaluating", "exporting")
    if job.status is Status.STARTING and trains:
        return Move(Status.RUNNING, Reason.TRAINING)
    if job.status is Status.RUNNING and trains and attempt.phase != "training":
        return Move(Status.FINISHING, Reason.EVALUATING)
    return None


def _of_unknown(job: Job, attempt: Attempt, now: datetime, settings: Settings) -> Action:
    """Ray answered and does not know the attempt: not handed over yet, or forgotten with a lost head."""
    if attempt.submitted_at is None:
        return Submit()
    fresh = now - attempt.submitted_at < timedelta(seconds=RESUBMIT_WINDOW)
    if fresh and attempt.last_report_at is None and job.wish is Wish.RUN:
        return Submit()
    return _of_dead(job, attempt, Reason.CLUSTER_LOST, "", settings)


def _of_dead(job: Job, attempt: Attempt, reason: Reason, detail: str, settings: Settings) -> Action:
    """The attempt is gone and did not say why."""
    if job.wish is not Wish.RUN or attempt.asked_reason is not None:
        return _as_asked(job, attempt, attempt.stop_reason or _wished_reason(job))
    if attempt.stop_reason is Reason.FORCED:  # paused by force, and resumed before it was over
        return _as_asked(job, attempt, Reason.USER_RESUME)
    if job.losses >= settings.max_losses:
        return Conclude(Status.FAILED, Reason.TOO_MANY_LOSSES, detail)
    return Conclude(Status.QUEUED, attempt.stop_reason or reason, detail, charge="loss", delay=_back_off(job.losses))


def _of_alive(job: Job, attempt: Attempt, now: datetime, settings: Settings) -> Action | None:
    """Ray shows the attempt pending or running: stop it by force if it neither obeys nor gets on."""
    patience = timedelta(seconds=settings.cancel_deadline)
    if attempt.stop_asked_at is not None:
        # Ray cannot stop what it has not placed yet, and a lost machine cannot stop either: fence it and go on.
        over_due = now - attempt.stop_asked_at > patience
        return _of_dead(job, attempt, attempt.stop_reason or Reason.FORCED, "", settings) if over_due else None
    asked_at = _asked_at(job, attempt)
    if asked_at is not None and now - asked_at > patience:
        return Stop(Reason.FORCED)
    if attempt.asked_reason is None and job.wish is Wish.RUN and _ran(job, attempt, now) > _time_limit(job):
        return Ask(Reason.TIME_LIMIT)
    last_sign = attempt.progressed_at or attempt.submitted_at or attempt.created_at
    if now - last_sign > _stall_deadline(job, settings):
        return Stop(Reason.STALLED)
    return None


def _asked_at(job: Job, attempt: Attempt) -> datetime | None:
    """Since when the attempt has to stop. To pause what has trained and is being judged would save nothing."""
    finishing = job.status is Status.FINISHING
    since = []
    if job.wish is Wish.CANCEL or (job.wish is Wish.PAUSE and not finishing):
        since.append(max(job.wished_at, attempt.created_at))
    if attempt.asked_at is not None and (attempt.asked_reason is Reason.TIME_LIMIT or not finishing):
        since.append(attempt.asked_at)
    return min(since, default=None)


def _ran(job: Job, attempt: Attempt, now: datetime) -> timedelta:
    return timedelta(seconds=job.run_seconds) + (now - attempt.created_at)


def _time_limit(job: Job) -> timedelta:
    minutes = job.spec.get("time_limit_minutes")
    return timedelta.max if minutes is None else timedelta(minutes=minutes)


def _stall_deadline(job: Job, settings: Settings) -> timedelta:
    minutes = job.spec.get("stall_minutes")
    return timedelta(seconds=settings.stall_deadline) if minutes is None else timedelta(minutes=minutes)


def _back_off(times: int) -> float:
    """Seconds to wait after having gone wrong `times` times before."""
    return float(min(60, 2**times))


def _as_asked(job: Job, attempt: Attempt, reason: Reason) -> Conclude:
    """The attempt has stopped: to where the user wants the job now, which may have changed since it was asked."""
    if job.wish is Wish.CANCEL:
        return Conclude(Status.CANCELLED, reason)
    if job.wish is Wish.PAUSE and job.status is not Status.FINISHING:
        return Conclude(Status.PAUSED, reason)
    if attempt.asked_reason is Reason.TIME_LIMIT:
        return Conclude(Status.FAILED, Reason.TIME_LIMIT)
    if attempt.asked_reason is Reason.PREEMPTED:
        return Conclude(Status.QUEUED, Reason.PREEMPTED, charge="preemption")
    return Conclude(Status.QUEUED, reason)  # from finishing to paused leads through the queue


def _wished_reason(job: Job) -> Reason:
    return {Wish.CANCEL: Reason.USER_CANCEL, Wish.PAUSE: Reason.USER_PAUSE, Wish.RUN: Reason.USER_RESUME}[job.wish]
