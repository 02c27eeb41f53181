"""Every row that Fewstep stores of its users' work. One schema for SQLite and PostgreSQL; `migrations/` lead to it."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from service.columns import Row, words
from service.status import Reason, Role, Status, Wish


class EndpointStatus(StrEnum):
    DEPLOYING = "deploying"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Outcome(StrEnum):
    """What an attempt said of its own end."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class Project(Row):
    """Whose jobs, students and endpoints these are, and how much of the cluster they may use; None is no limit."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    weight: Mapped[float] = mapped_column(default=1.0, doc="Share of the cluster beside the other projects'.")
    max_jobs: Mapped[int | None] = mapped_column(doc="On the cluster at once.")
    max_gpus: Mapped[float | None] = mapped_column(doc="On the cluster at once.")
    max_gpu_hours: Mapped[float | None] = mapped_column(doc="In any 30 days.")
    max_priority: Mapped[int] = mapped_column(default=10, doc="Highest priority that its jobs may ask for.")
    created_at: Mapped[datetime]


class Teacher(Row):
    __tablename__ = "teachers"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(default="", doc="Empty: every project's.")
    name: Mapped[str]
    source: Mapped[str]
    family: Mapped[str]
    pipeline: Mapped[str]
    scheduler: Mapped[str]
    prediction_type: Mapped[str]
    image_size: Mapped[list[int]]
    num_classes: Mapped[int | None]
    text: Mapped[bool]
    parameters: Mapped[int]
    sha256: Mapped[str]
    footprint: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Dataset(Row):
    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str]
    source: Mapped[str]
    format: Mapped[str] = mapped_column(doc="images, webdataset, huggingface or prompts.")
    content: Mapped[str] = mapped_column(doc="What is known of a sample: nothing, classes or captions.")
    samples: Mapped[int]
    bytes: Mapped[int]
    classes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True), doc="Names, by label.")
    created_at: Mapped[datetime]


class Job(Row):
    """Written by three: intent by the API, lifecycle by the reconciler, counters by the job's own reports."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "status", "id"),
        Index(None, "project_id", "status", "id"),
        Index(None, "project_id", "name", "status", "id"),
        Index(None, "project_id", "teacher", "status", "id"),
        Index(
            "ix_jobs_look_at",
            "look_at",
            sqlite_where=text("look_at IS NOT NULL"),
            postgresql_where=text("look_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str | None]
    teacher_id: Mapped[str] = mapped_column(ForeignKey("teachers.id"))
    teacher: Mapped[str] = mapped_column(doc="The teacher's name, which never changes.")
    methods: Mapped[str] = mapped_column(doc="The method of each stage, between spaces.")
    spec: Mapped[dict[str, Any]]
    max_failures: Mapped[int]
    total_steps: Mapped[int]
    priority: Mapped[int] = mapped_column(default=0)
    workers: Mapped[int] = mapped_column(default=1)
    cpus_per_worker: Mapped[float] = mapped_column(default=1.0)
    gpus_per_worker: Mapped[float] = mapped_column(default=0.0)
    traceparent: Mapped[str | None] = mapped_column(doc="W3C trace context of the submission.")
    created_at: Mapped[datetime]
    # intent
    wish: Mapped[Wish]
    wished_at: Mapped[datetime]
    retries_asked: Mapped[int] = mapped_column(default=0)
    # lifecycle
    status: Mapped[Status] = mapped_column(words(Status, "status"))
    reason: Mapped[Reason]
    detail: Mapped[str] = mapped_column(default="", doc="What the reason's own sentence cannot know.")
    attempt: Mapped[int] = mapped_column(default=0, doc="Number of the newest attempt.")
    failures: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    preemptions: Mapped[int] = mapped_column(default=0)
    retries_done: Mapped[int] = mapped_column(default=0)
    run_seconds: Mapped[float] = mapped_column(default=0.0, doc="On the cluster, in ended attempts since last retry.")
    requeued_at: Mapped[datetime | None] = mapped_column(doc="When it last came back to the queue.")
    not_before: Mapped[datetime | None]
    look_at: Mapped[datetime | None] = mapped_column(doc="When the reconciler looks at it next; None: it need not.")
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # observations
    step: Mapped[int] = mapped_column(default=0)
    last_event: Mapped[int] = mapped_column(default=0)
    last_log: Mapped[int] = mapped_column(default=0)


class JobMethod(Row):
    """The methods of each job once more, and its status with each, so that jobs are found by one of them."""

    __tablename__ = "job_methods"
    __table_args__ = (Index(None, "project_id", "kind", "status", "job_id"),)

    project_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    status: Mapped[Status] = mapped_column(words(Status))


class Attempt(Row):
    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "number"), Index(None, "ended_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    submission_id: Mapped[str] = mapped_column(unique=True)
    gpus: Mapped[float] = mapped_column(default=0.0, doc="Promised to it, over all workers.")
    created_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    asked_at: Mapped[datetime | None] = mapped_column(doc="When the control plane asked it to save and stop.")
    asked_reason: Mapped[Reason | None]
    stop_asked_at: Mapped[datetime | None] = mapped_column(doc="When Ray was asked to stop it by force.")
    stop_reason: Mapped[Reason | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[Reason | None]
    detail: Mapped[str | None]
    # observations
    writer: Mapped[int] = mapped_column(default=0, doc="How often its order was fetched; the last to fetch it reports.")
    acknowledged: Mapped[int] = mapped_column(default=0)
    last_report_at: Mapped[datetime | None]
    progressed_at: Mapped[datetime | None] = mapped_column(doc="Last observation that is not a log line.")
    phase: Mapped[str | None]
    outcome: Mapped[Outcome | None] = mapped_column(words(Outcome))
    outcome_reason: Mapped[Reason | None]
    outcome_detail: Mapped[str | None]


class Event(Row):
    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    type: Mapped[str]
    status: Mapped[Status | None] = mapped_column(words(Status))
    reason: Mapped[Reason | None]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]


class Metric(Row):
    __tablename__ = "metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[int]
    at: Mapped[datetime]
    values: Mapped[dict[str, Any]]


class Sample(Row):
    __tablename__ = "samples"
    __table_args__ = (UniqueConstraint("job_id", "role", "stage", "step", "sampling_steps"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    step: Mapped[int]
    stage: Mapped[int]
    role: Mapped[str]
    sampling_steps: Mapped[int]
    at: Mapped[datetime]
    path: Mapped[str]


class Checkpoint(Row):
    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    attempt: Mapped[int]
    path: Mapped[str]
    bytes: Mapped[int]


class Log(Row):
    __tablename__ = "logs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    level: Mapped[str]
    rank: Mapped[int]
    attempt: Mapped[int]
    message: Mapped[str]


class Student(Row):
    __tablename__ = "students"
    __table_args__ = (
        UniqueConstraint("job_id", "label"),
        Index(None, "project_id", "id"),
        Index(None, "project_id", "name", "id"),
        Index(None, "project_id", "teacher", "id"),
        Index(None, "project_id", "method", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    label: Mapped[str]
    name: Mapped[str]
    teacher: Mapped[str]
    method: Mapped[str]
    stage: Mapped[int]
    steps: Mapped[list[int]]
    path: Mapped[str]
    grid: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    parameters: Mapped[int]
    training_seconds: Mapped[float]
    image_size: Mapped[list[int]]
    num_classes: Mapped[int | None]
    text: Mapped[bool]
    figures: Mapped[dict[str, Any]]
    teacher_figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Endpoint(Row):
    __tablename__ = "endpoints"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str] = mapped_column(unique=True)
    student_id: Mapped[str] = mapped_column(ForeignKey("students.id"))
    with_teacher: Mapped[bool]
    app: Mapped[str] = mapped_column(unique=True, doc="Its application in Ray Serve.")
    created_at: Mapped[datetime]
    # intent
    deleted_at: Mapped[datetime | None]
    # lifecycle
    status: Mapped[EndpointStatus] = mapped_column(words(EndpointStatus, "status"))
    detail: Mapped[str] = mapped_column(default="")


class ApiKey(Row):
    """Good for one project; its role says what it may do there."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str]
    role: Mapped[Role]
    prefix: Mapped[str] = mapped_column(default="", doc="The key's first characters, to tell keys apart.")
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None] = mapped_column(doc="To the minute.")
    revoked_at: Mapped[datetime | None]


class IdempotentRequest(Row):
    __tablename__ = "idempotent_requests"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(index=True)


class AuditEntry(Row):
    """What somebody did. Written with the deed; numbered and chained by hashes a moment later."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int | None] = mapped_column(unique=True)
    at: Mapped[datetime]
    project_id: Mapped[str | None]
    key_id: Mapped[str | None] = mapped_column(doc="None: the platform itself, or its operator on the machine.")
    action: Mapped[str]
    target: Mapped[str]
    data: Mapped[dict[str, Any]]
    request_id: Mapped[str]
    previous: Mapped[str | None]
    sha256: Mapped[str | None]


class Webhook(Row):
    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    url: Mapped[str]
    events: Mapped[list[str]] = mapped_column(doc="Event types; empty: all.")
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Delivery(Row):
    """One event on its way to one webhook: the outbox."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index(None, "webhook_id", "id"),
        Index(None, "webhook_id", "status", "id"),
        Index(
            "ix_deliveries_webhook_id_due_at",
            "webhook_id",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    type: Mapped[str] = mapped_column(doc="'job.succeeded', 'webhook.test' …")
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    status: Mapped[DeliveryStatus] = mapped_column(words(DeliveryStatus))
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None] = mapped_column(doc="When it is tried next; None: it is over.")
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    last_status: Mapped[int | None] = mapped_column(doc="HTTP status of the last try.")
    last_error: Mapped[str | None]
    delivered_at: Mapped[datetime | None]
