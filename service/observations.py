"""What a running job tells the control plane, and what it is told back.

The job's side posts `Report`s to `/v1/attempts/{attempt_id}/reports` with the attempt's token. Observations are
numbered from 1 within their attempt; a repeated number is acknowledged and ignored, so a report may be sent any number
of times.
Files (previews, students, checkpoints) are written to the artifact store first; an observation names them by their path
inside the store.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.spec import JobSpec
from service.status import Reason, Wish


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Count = Annotated[int, Field(ge=0, le=2**53)]


class Observation(Wire):
    seq: Count = Field(ge=1, description="Number within the attempt, without gaps.")
    at: float = Field(ge=0, lt=2**33, allow_inf_nan=False, description="Unix seconds on the job's clock.")


Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
StorePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$", max_length=512)]


class Phase(Observation):
    """The job entered a part of its life. `training` comes with the first step, `evaluating` after the last."""

    type: Literal["phase"] = "phase"
    phase: Literal["starting", "training", "evaluating", "exporting"]


class Metrics(Observation):
    """Figures of one optimizer step; `step` counts over all stages from 1. A step is stored once."""

    type: Literal["metrics"] = "metrics"
    step: Count = Field(ge=1)
    stage: Count
    values: dict[str, float | None] = Field(
        description="loss, grad_norm, learning_rate, images_per_second and the method's own; null is NaN or infinite."
    )


class LogLine(Observation):
    type: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: str = Field(max_length=4000)
    rank: Count = 0


class Sample(Observation):
    """A preview grid: one column per class or seed, the same seeds every time. `role` teacher comes once, at step 0."""

    type: Literal["sample"] = "sample"
    step: Count = Field(ge=0)
    stage: Count
    role: Literal["student", "teacher"]
    sampling_steps: Count = Field(ge=1)
    path: StorePath


class CheckpointSaved(Observation):
    type: Literal["checkpoint"] = "checkpoint"
    step: Count = Field(ge=0)
    path: StorePath
    bytes: Count


class Figures(Wire):
    """Quality of one set of samples, against held-out data. Distances: lower is better."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    frechet: float
    kernel: float
    accuracy: float | None = Field(description="None for a teacher without classes.")
    precision: float
    recall: float
    diversity: float
    nearest_neighbour_ratio: float
    ms_per_image: float
    agreement: float | None = Field(
        None,
        description="How far images are from the teacher's reference row for the same prompts or classes and seeds, 0 "
        "if they are the same: 1 - cos of their features, or the root mean square difference of 8×8 averages.",
    )
    cmmd: float | None = Field(None, description="1000 times the squared MMD of CLIP embeddings; lower is better.")
    clip_score: float | None = Field(
        None, description="Mean of 100 max(cos(image, prompt), 0) of CLIP embeddings; higher is better."
    )


class StudentExported(Observation):
    """A student folder lies in the store, was loaded back and gave the same images."""

    type: Literal["student"] = "student"
    label: Word = Field(description="Unique within the job: method and own step count, 'progressive-4'.")
    method: Word
    stage: Count
    steps: list[int] = Field(min_length=1, description="Sampling steps it is made for, its own first.")
    path: StorePath
    grid: StorePath = Field(description="PNG: the teacher's row above the student's rows, same seeds.")
    bytes: Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    parameters: Count
    training_seconds: float = Field(ge=0, allow_inf_nan=False)
    image_size: list[int] = Field(description="[channels, height, width]")
    num_classes: int | None
    text: bool = Field(False, description="Whether it is asked for images by prompts.")
    figures: dict[int, Figures] = Field(description="By sampling steps.")
    teacher_figures: dict[int, Figures] = Field(description="By sampling steps; the reference row included.")


class Stopped(Observation):
    """The job saved a checkpoint and stopped because it was asked to."""

    type: Literal["stopped"] = "stopped"
    wish: Wish
    step: Count


class Failure(Observation):
    """The job's own code failed: the attempt is over and is charged to `max_failures`."""

    type: Literal["failure"] = "failure"
    reason: Reason
    message: str = Field(max_length=4000)


class Done(Observation):
    """Everything that the spec asked for is in the store and reported."""

    type: Literal["done"] = "done"


AnyObservation = Annotated[
    Phase | Metrics | LogLine | Sample | CheckpointSaved | StudentExported | Stopped | Failure | Done,
    Field(discriminator="type"),
]


class Report(Wire):
    """An empty report is a heartbeat."""

    observations: list[AnyObservation] = Field(default_factory=list, max_length=2000)
    writer: Count | None = Field(None, description="The order's; null is not checked.")


class ReportAnswer(Wire):
    acknowledged: int = Field(description="Highest number stored; the job drops its copies up to it.")
    wish: Wish


DataFormat = Literal["images", "webdataset", "huggingface", "prompts"]
DataContent = Literal["nothing", "classes", "captions"]


class DatasetOrder(Wire):
    """The registered dataset that a job learns from."""

    source: str = Field(description="A folder's path inside the store, or 'hf://datasets/org/name@commit'.")
    format: DataFormat
    content: DataContent = Field(description="What is known of each sample; captions where there are classes as well.")
    samples: int = Field(ge=1, description="Counted when it was registered, before anything was decoded.")
    classes: list[str] | None = Field(None, description="Their names, by label; null without classes.")


class AttemptOrder(Wire):
    """What `GET /v1/attempts/{id}` tells the driver: all it needs to run the attempt."""

    attempt_id: str
    job_id: str
    number: int = Field(ge=1)
    spec: JobSpec
    teacher: str = Field(description="Display name.")
    teacher_source: str = Field(
        description="'builtin:digits', a folder's path inside the store, or 'hf://org/name@commit'."
    )
    teacher_sha256: str = Field(description="Of its weights, as they were registered.")
    dataset: DatasetOrder | None = Field(None, description="What the job learns from, where it has data of its own.")
    store: str = Field(description="fsspec URL of the artifact store's root.")
    folder: StorePath = Field(description="The job's own folder inside the store.")
    writer: Count = Field(
        0, description="Number of this fetch of the order. Reports with the number of an earlier one are refused."
    )
    acknowledged: int = Field(
        ge=0, description="Highest observation number stored so far; the next one is this plus 1."
    )
    wish: Wish
