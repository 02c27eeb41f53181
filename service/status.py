"""A job's states, the moves between them, and why it is where it is."""

from enum import StrEnum


class Status(StrEnum):
    """Where a job stands. Cancel and pause are wishes (`Wish`), not states: the status changes when it is true."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FINISHING = "finishing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


S = Status
TRANSITIONS: dict[Status, frozenset[Status]] = {
    S.QUEUED: frozenset({S.STARTING, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.STARTING: frozenset({S.RUNNING, S.QUEUED, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.RUNNING: frozenset({S.FINISHING, S.QUEUED, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.FINISHING: frozenset({S.SUCCEEDED, S.QUEUED, S.CANCELLED, S.FAILED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset({S.QUEUED}),
    S.CANCELLED: frozenset({S.QUEUED}),
}
"""The whole state machine. `FAILED` and `CANCELLED` leave only by a user's retry."""

ACTIVE = frozenset({S.STARTING, S.RUNNING, S.FINISHING})
"""States in which an attempt exists on the cluster."""

TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})


class Wish(StrEnum):
    """What the user wants of a job. Written by the API alone, carried to the job in the answer to its reports."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Role(StrEnum):
    """What an API key may do in its project; each role may do what the ones before it may."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


class Reason(StrEnum):
    """Why a job or an attempt is in its state; `REASONS` says it in a sentence that tells what to do."""

    SUBMITTED = "submitted"
    DISPATCHED = "dispatched"
    TRAINING = "training"
    EVALUATING = "evaluating"
    EXPORTED = "exported"
    USER_CANCEL = "user_cancel"
    USER_PAUSE = "user_pause"
    USER_RESUME = "user_resume"
    USER_RETRY = "user_retry"
    TRAINING_ERROR = "training_error"
    DIVERGED = "diverged"
    EXPORT_MISMATCH = "export_mismatch"
    TEACHER_INVALID = "teacher_invalid"
    DATA_INVALID = "data_invalid"
    DRIVER_DIED = "driver_died"
    CLUSTER_LOST = "cluster_lost"
    STALLED = "stalled"
    TOO_MANY_LOSSES = "too_many_losses"
    FORCED = "forced"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time_limit"


REASONS: dict[Reason, str] = {
    Reason.SUBMITTED: "Waiting for the cluster to have room.",
    Reason.DISPATCHED: "The cluster is starting the workers.",
    Reason.TRAINING: "The student is being trained.",
    Reason.EVALUATING: "Training is over; the student is being judged and exported.",
    Reason.EXPORTED: "The student was exported, loaded back and gave the same images.",
    Reason.USER_CANCEL: "Cancelled on request; retry starts it again from its last checkpoint.",
    Reason.USER_PAUSE: "Paused on request; resume goes on from its last checkpoint.",
    Reason.USER_RESUME: "Resumed on request; waiting for the cluster to have room.",
    Reason.USER_RETRY: "Retried on request; waiting for the cluster to have room.",
    Reason.TRAINING_ERROR: "The training code raised an error; read the last log lines, then change the spec.",
    Reason.DIVERGED: "A loss, a weight or a sample left all bounds; lower learning_rate and submit again.",
    Reason.EXPORT_MISMATCH: "The exported folder did not give the student's images back; report this with the logs.",
    Reason.TEACHER_INVALID: "The teacher cannot be used; read the detail, mend the teacher and submit again.",
    Reason.DATA_INVALID: "The data cannot be used; read the detail, mend the dataset and submit again.",
    Reason.DRIVER_DIED: "The driver process died; the job goes on from its last checkpoint.",
    Reason.CLUSTER_LOST: "The cluster no longer knows this attempt; the job goes on from its last checkpoint.",
    Reason.STALLED: "No step for too long; the job goes on from its last checkpoint.",
    Reason.TOO_MANY_LOSSES: "Machines were lost too often; check the cluster, then retry.",
    Reason.FORCED: "The job did not stop in time and was stopped by force.",
    Reason.PREEMPTED: "A job of higher priority took its place; it goes on from its checkpoint when there is room.",
    Reason.TIME_LIMIT: "It reached time_limit_minutes; retry gives it as long once more, from its last checkpoint.",
}
