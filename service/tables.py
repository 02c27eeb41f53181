"""Every row that Fewstep stores. One schema for SQLite and PostgreSQL, and `migrations/` must lead to it."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Enum, ForeignKey, Index, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from service.status import Reason, Status, Wish


class Instant(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which has no time zones, keeps it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EndpointStatus(StrEnum):
    DEPLOYING = "deploying"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"


class Outcome(StrEnum):
    """What an attempt said of its own end."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


def _words(enum: type[StrEnum], name: str | None = None) -> Enum:
    """Stored as text; with `name`, a CHECK constraint refuses every other word."""
    return Enum(
        enum,
        native_enum=False,
        length=24,
        create_constraint=name is not None,
        name=name,
        values_callable=lambda members: [member.value for member in members],
    )


class Row(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        datetime: Instant,
        int: BigInteger,
        str: String,
        dict[str, Any]: JSON,
        list[int]: JSON,
        Reason: _words(Reason),
        Wish: _words(Wish),
    }


class Teacher(Row):
    __tablename__ = "teachers"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    source: Mapped[str]
    pipeline: Mapped[str]
    scheduler: Mapped[str]
    prediction_type: Mapped[str]
    image_size: Mapped[list[int]]
    num_classes: Mapped[int | None]
    parameters: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[datetime]


class Job(Row):
    """Written by three: intent by the API, lifecycle by the reconciler, counters by the job's own reports."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "status", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(index=True)
    teacher_id: Mapped[str] = mapped_column(ForeignKey("teachers.id"))
    teacher: Mapped[str] = mapped_column(doc="The teacher's name, which never changes.")
    methods: Mapped[str] = mapped_column(doc="The method of each stage, between spaces.")
    spec: Mapped[dict[str, Any]]
    max_failures: Mapped[int]
    total_steps: Mapped[int]
    created_at: Mapped[datetime]
    # intent
    wish: Mapped[Wish]
    wished_at: Mapped[datetime]
    retries_asked: Mapped[int] = mapped_column(default=0)
    # lifecycle
    status: Mapped[Status] = mapped_column(_words(Status, "status"))
    reason: Mapped[Reason]
    detail: Mapped[str] = mapped_column(default="", doc="What the reason's own sentence cannot know.")
    attempt: Mapped[int] = mapped_column(default=0, doc="Number of the newest attempt.")
    failures: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    retries_done: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # observations
    step: Mapped[int] = mapped_column(default=0)
    last_event: Mapped[int] = mapped_column(default=0)
    last_log: Mapped[int] = mapped_column(default=0)


class Attempt(Row):
    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "number"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    submission_id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    stop_asked_at: Mapped[datetime | None]
    stop_reason: Mapped[Reason | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[Reason | None]
    detail: Mapped[str | None]
    # observations
    acknowledged: Mapped[int] = mapped_column(default=0)
    last_report_at: Mapped[datetime | None]
    phase: Mapped[str | None]
    outcome: Mapped[Outcome | None] = mapped_column(_words(Outcome))
    outcome_reason: Mapped[Reason | None]
    outcome_detail: Mapped[str | None]


class Event(Row):
    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    type: Mapped[str]
    status: Mapped[Status | None] = mapped_column(_words(Status))
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
    __table_args__ = (UniqueConstraint("job_id", "label"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    label: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
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
    figures: Mapped[dict[str, Any]]
    teacher_figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Endpoint(Row):
    __tablename__ = "endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    student_id: Mapped[str] = mapped_column(ForeignKey("students.id"))
    with_teacher: Mapped[bool]
    app: Mapped[str] = mapped_column(unique=True, doc="Its application in Ray Serve.")
    created_at: Mapped[datetime]
    # intent
    deleted_at: Mapped[datetime | None]
    # lifecycle
    status: Mapped[EndpointStatus] = mapped_column(_words(EndpointStatus, "status"))
    detail: Mapped[str] = mapped_column(default="")


class ApiKey(Row):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class IdempotencyKey(Row):
    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(index=True)


class Secret(Row):
    """What every process of the control plane must share: the key that attempt tokens are derived from."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
