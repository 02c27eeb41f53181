"""The shapes of every HTTP answer. Requests are strict; answers say exactly this much."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.methods.base import DataNeed, Family
from service.observations import DataContent, DataFormat, Figures
from service.spec import JobSpec, Name, Strict
from service.status import Reason, Role, Status, Wish
from service.tables import DeliveryStatus
from service.webhooks import EventType


class Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


T = TypeVar("T")

SHOWN_ONCE = "shown once"
ShownOnce = Annotated[str | None, SHOWN_ONCE]
"""A secret that is told when it is made and never again: null in the answer to a repeated request."""


class Page(Answer, Generic[T]):
    """A page of a list; ask for the next one with `after=<next>`."""

    data: list[T]
    has_more: bool
    next: str | None


class AttemptView(Answer):
    """One try at running the job on the cluster."""

    id: str
    number: int
    submission_id: str = Field(description="Ray's id of this attempt.")
    created_at: datetime
    ended_at: datetime | None
    last_report_at: datetime | None
    reason: Reason | None = Field(description="Why it ended; null while it runs.")
    detail: str | None


class JobView(Answer):
    object: Literal["job"] = "job"
    id: str
    name: str | None
    status: Status
    reason: Reason
    detail: str = Field(description="One sentence: why it is so and what to do.")
    wish: Wish
    waiting: str | None = Field(
        None, description="What a queued job waits for, in clauses between semicolons; only in a single job."
    )
    priority: int = Field(description="Higher goes first, and may take the place of a lower one.")
    failures: int = Field(description="Attempts that the training code itself ended, of max_failures that it may.")
    losses: int = Field(description="Attempts lost to dead processes or machines.")
    preemptions: int = Field(description="Attempts that made room for jobs of higher priority; charged to nothing.")
    teacher: str
    data: str | None = Field(description="The dataset that it learns from, as the spec names it.")
    methods: list[str] = Field(description="The method of each stage.")
    spec: JobSpec
    step: int = Field(description="Optimizer steps done.")
    total_steps: int
    progress: float = Field(ge=0, le=1)
    eta_seconds: float | None = Field(description="Estimated seconds until the job is over; null when unknown.")
    created_at: datetime
    requeued_at: datetime | None = Field(description="When it last came back to the queue.")
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: list[AttemptView] = Field(default_factory=list, description="Empty in lists; in order in a single job.")
    students: list[str] = Field(default_factory=list, description="Ids of the students it left.")


class Problem(Answer):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[dict[str, str]] = Field(default_factory=list, description="[{pointer, detail}]")


class EventView(Answer):
    seq: int
    at: datetime
    type: Literal["status", "attempt", "wish", "student"]
    status: Status | None
    reason: Reason | None
    message: str
    data: dict[str, Any]


class MetricView(Answer):
    step: int
    stage: int
    at: datetime
    values: dict[str, float | None] = Field(description="null is NaN or infinite.")


class LogView(Answer):
    seq: int
    at: datetime
    level: str
    rank: int
    attempt: int
    message: str


class SampleView(Answer):
    id: str
    step: int
    stage: int
    role: Literal["student", "teacher"]
    sampling_steps: int
    at: datetime
    url: str = Field(description="Path of the PNG on this API.")


class CheckpointView(Answer):
    step: int
    at: datetime
    attempt: int
    path: str
    bytes: int


class MethodView(Answer):
    kind: str
    title: str
    family: Family
    paper: str
    data_need: DataNeed
    summary: str
    known_limit: str = Field(description="What it is known to be poor at; empty where nothing is known.")
    forwards: float = Field(description="Of a whole batch through a network, per step of the student, with defaults.")
    backwards: float
    json_schema: dict[str, Any] = Field(description="JSON Schema of the settings, defaults included.")


class TeacherCreate(Strict):
    name: Name
    source: str = Field(
        min_length=1,
        max_length=500,
        description="A diffusers folder: its path inside the store, or `hf://org/name@revision` of the hub.",
    )


class TeacherView(Answer):
    object: Literal["teacher"] = "teacher"
    id: str
    name: str
    source: str
    family: str = Field(description="unet2d (a UNet2DModel on pixels), stable-diffusion, sdxl, dit …")
    pipeline: str = Field(description="The pipeline class of model_index.json.")
    scheduler: str
    prediction_type: str
    image_size: list[int] = Field(description="[channels, height, width]")
    num_classes: int | None
    text: bool = Field(description="Whether it is asked for images by prompts.")
    parameters: int = Field(description="Of the network that denoises.")
    sha256: str
    created_at: datetime


class DatasetCreate(Strict):
    name: Name
    source: str = Field(
        min_length=1,
        max_length=500,
        description="A folder of images, tars, rows or prompts in the store, or `hf://datasets/org/name@revision`.",
    )


class DatasetView(Answer):
    object: Literal["dataset"] = "dataset"
    id: str
    name: str
    source: str
    format: DataFormat = Field(description="images (a folder), webdataset, huggingface, or prompts alone.")
    content: DataContent = Field(description="What is known of each sample; captions where there are classes as well.")
    samples: int = Field(description="As far as names and headers tell; images are decoded by jobs alone.")
    bytes: int
    classes: list[str] | None = Field(description="Their names, by label.")
    created_at: datetime


class StudentView(Answer):
    object: Literal["student"] = "student"
    id: str
    job_id: str
    name: str
    teacher: str
    method: str
    steps: list[int]
    image_size: list[int]
    num_classes: int | None
    text: bool = Field(description="Whether it is asked for images by prompts.")
    parameters: int
    bytes: int
    sha256: str
    training_seconds: float
    figures: dict[int, Figures]
    teacher_figures: dict[int, Figures]
    grid_url: str
    archive_url: str
    created_at: datetime


class EndpointCreate(Strict):
    name: Name = Field(description="The `model` of an images request.")
    student: str = Field(description="Id or name of a student.")
    with_teacher: bool = Field(True, description="Serve the teacher too, as model `<name>:teacher`, for comparison.")


class EndpointView(Answer):
    object: Literal["endpoint"] = "endpoint"
    id: str
    name: str
    student: str
    student_id: str
    with_teacher: bool
    status: Literal["deploying", "ready", "failed", "deleting"]
    detail: str
    url: str = Field(description="Base URL for an OpenAI client.")
    steps: list[int]
    num_classes: int | None
    text: bool = Field(description="Whether an images request needs a prompt.")
    image_size: list[int]
    created_at: datetime


Limit = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class ProjectChange(Strict):
    """What is given is changed; null is no limit."""

    weight: float = Field(1.0, gt=0, le=1e6, description="Share of the cluster beside the other projects'.")
    max_jobs: Count | None = Field(None, description="Jobs on the cluster at once.")
    max_gpus: Limit | None = Field(None, description="GPUs on the cluster at once.")
    max_gpu_hours: Limit | None = Field(None, description="GPU-hours in any 30 days.")
    max_priority: int = Field(10, ge=-100, le=100, description="Highest priority that its jobs may ask for.")


class ProjectCreate(ProjectChange):
    name: Name


class UsageView(Answer):
    queued: int = Field(description="Jobs that wait.")
    active: int = Field(description="Jobs on the cluster.")
    gpus: float = Field(description="GPUs promised to them.")


class ProjectView(Answer):
    object: Literal["project"] = "project"
    id: str
    name: str
    weight: float
    max_jobs: int | None
    max_gpus: float | None
    max_gpu_hours: float | None
    max_priority: int
    in_use: UsageView
    created_at: datetime


class KeyCreate(Strict):
    name: Name = Field(description="Whose it is, or what uses it.")
    role: Role
    project: str | None = Field(None, max_length=200, description="Name or id; by default the caller's own.")
    expires_in_days: int | None = Field(None, ge=1, le=3650, description="null: never.")


class KeyView(Answer):
    object: Literal["key"] = "key"
    id: str
    project_id: str
    name: str
    role: Role
    prefix: str = Field(description="How the key begins.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class NewKey(KeyView):
    key: ShownOnce = Field(description="The key itself; it is stored nowhere, so keep it now.")


class AuditView(Answer):
    id: str
    seq: int | None = Field(description="Place in the chain; null for a moment after the deed.")
    at: datetime
    project_id: str | None
    key_id: str | None = Field(description="null: the platform itself, or its operator on the machine.")
    action: str
    target: str
    data: dict[str, Any]
    request_id: str
    sha256: str | None


class ChainView(Answer):
    """What a check of the audit log found. Keep `seq` and `sha256` elsewhere, and give them to the next check."""

    intact: bool
    seq: int = Field(description="Number of the last entry up to which all is well.")
    sha256: str = Field(description="That entry's hash.")
    unsealed: int = Field(description="Entries of this moment, which are not in the chain yet.")
    problem: str | None = Field(description="What is wrong with the first bad entry.")


class WebhookCreate(Strict):
    url: str = Field(min_length=1, max_length=2000, description="http:// or https://, at a public address.")
    events: list[EventType] = Field(
        default_factory=list, max_length=50, description="Only events of these types; empty: all."
    )


class WebhookView(Answer):
    object: Literal["webhook"] = "webhook"
    id: str
    url: str
    events: list[EventType] = Field(description="Empty: all.")
    created_at: datetime


class NewWebhook(WebhookView):
    secret: ShownOnce = Field(description="Checks the signatures, as Standard Webhooks say; keep it now.")


class DeliveryView(Answer):
    """One event on its way to one webhook."""

    object: Literal["delivery"] = "delivery"
    id: str = Field(description="Sent as `webhook-id`; the same at every try, so that receivers can drop repeats.")
    webhook_id: str
    type: EventType | Literal["webhook.test"]
    payload: dict[str, Any] = Field(description="The body that is sent.")
    status: DeliveryStatus = Field(description="`dead`: no try is left; a replay starts anew.")
    attempts: int = Field(description="Tries since it was made or last replayed.")
    created_at: datetime
    due_at: datetime | None = Field(description="When it is tried next; null: it is over.")
    last_status: int | None = Field(description="HTTP status of the last try; null: there was no answer.")
    last_error: str | None = Field(description="What was wrong with the last try.")
    delivered_at: datetime | None


class Version(Answer):
    version: str
    schema_revision: str = Field(description="Alembic revision of the database.")


class Health(Answer):
    status: Literal["ok"]


class Readiness(Answer):
    status: Literal["ready", "not_ready"]
    checks: dict[str, str]
