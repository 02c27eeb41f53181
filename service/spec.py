"""The job spec: everything that a user decides, strict, with defaults that were tested."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from service.methods import Method
from service.methods.base import MethodSettings

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]

PROMPT_LENGTH = 2000
"""Characters; encoders of text read the first hundreds."""

Prompt = Annotated[str, StringConstraints(min_length=1, max_length=PROMPT_LENGTH)]


FolderInStore = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$", max_length=512)
]
"""A path inside the artifact store, which leads nowhere else."""


class Strict(BaseModel):
    """Refuses what it does not know, NaN and infinity; never changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stage(Strict):
    """One method applied to the student of the stage before it (the first stage starts from the teacher)."""

    method: Method


class Resources(Strict):
    """What the job asks of the cluster."""

    workers: int = Field(1, ge=1, le=1024, description="Ray Train workers; the batch is split between them.")
    cpus_per_worker: float = Field(1, gt=0, le=256, description="Ray CPUs of each worker.")
    gpus_per_worker: float = Field(0, ge=0, le=16, description="Ray GPUs of each worker; 0 trains on CPU.")


class Compute(Strict):
    """How networks are held and run; none of it changes what is learnt, apart from rounding."""

    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="What each worker holds: every network whole (ddp), or its share of every network's weights, "
        "gradients, averages and optimizer states, gathered block by block as they are needed (fsdp).",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="In which networks run while they train. Weights, losses, averages and optimizers stay in fp32, "
        "and so do derivatives in time, previews and the export. fp16 scales the loss, and skips steps that overflow.",
    )
    activation_checkpointing: bool = Field(
        False, description="Compute blocks again for the backward pass and keep less: slower steps, much less memory."
    )
    offload: bool = Field(
        False, description="Text encoders and VAE are on the device only while they encode and decode."
    )
    channels_last: bool = Field(False, description="Keep images with the channels innermost: faster on GPUs.")
    compile: bool = Field(False, description="torch.compile the networks: minutes at the start, then faster steps.")

    def misfit(self, method: MethodSettings) -> str | None:
        """What of `method` cannot be run this way, and what to do: derivatives that are more than gradients."""
        if method.second_derivative() and self.strategy == "fsdp":
            return "compute.strategy fsdp has no second derivatives: use r1 approximate"
        if method.forward_mode() and (self.strategy == "fsdp" or self.activation_checkpointing):
            field = "strategy fsdp" if self.strategy == "fsdp" else "activation_checkpointing"
            return f"compute.{field} has no derivatives in forward mode: give a number as difference_step"
        return None


class Evaluation(Strict):
    """How the student is judged beside its teacher."""

    samples: int = Field(
        1000, ge=100, le=100_000, description="Generated images per row, the same number of each class."
    )
    teacher_steps: int = Field(50, ge=1, le=1000, description="Steps of the teacher's reference row.")
    features: FolderInStore | None = Field(
        None,
        description="Path in the store of the model in whose features images are compared, as transformers saves it: "
        "CLIP, which gives a CLIP score too, or DINOv2; or FID's Inception. Null: pixels, or what knows the digits.",
    )
    prompts: list[Prompt] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="What teacher and student are asked for, side by side, by the grid, the agreement and the CLIP "
        "score, best held out from training; null: the prompts of the job.",
    )

    @field_validator("features")
    @classmethod
    def not_of_a_job(cls, features: str | None) -> str | None:
        if features is not None and features.split("/")[0] == "jobs":
            raise ValueError("jobs/ is where jobs keep their own files; put the model elsewhere in the store")
        return features


class JobSpec(Strict):
    """A distillation job. The smallest form: `{"teacher": "digits", "method": {"kind": "progressive"}}`."""

    name: Name | None = Field(None, description="A name to find the job and its students by.")
    teacher: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="Name or id of a registered teacher."
    )
    prompts: list[Prompt] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="What a text-to-image teacher is asked for while it teaches; the first ones make the sample grids.",
    )
    data: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="Name or id of a registered dataset: images to learn from, captions to ask a teacher for."
    )
    aspect_buckets: bool = Field(
        False,
        description="Bring each image of the data to the nearest of a few sizes of about the teacher's area, up to "
        "2:1, where else all are cropped to the teacher's own size. A batch is of one size; the last one of a pass is "
        "filled up from the next pass over the images of that size.",
    )
    method: Method | None = Field(None, description="The method of a job with a single stage.")
    stages: list[Stage] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="A chain: each stage starts from the student of the last.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seeds data order, noise and initialisation.")
    resources: Resources = Resources()
    compute: Compute = Compute()
    checkpoint_every: int = Field(100, ge=1, le=1_000_000, description="Optimizer steps between checkpoints.")
    preview_every: int = Field(50, ge=1, le=1_000_000, description="Optimizer steps between sample grids.")
    evaluation: Evaluation = Evaluation()
    max_failures: int = Field(0, ge=0, le=100, description="Retries after errors of the training code itself.")
    priority: int = Field(0, ge=-10, le=10, description="Higher goes first, and may take the place of a lower one.")
    time_limit_minutes: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Minutes on the cluster after which the job is stopped; null means no limit.",
    )
    stall_minutes: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Minutes without a step after which an attempt is given up; null: the platform's.",
    )

    @model_validator(mode="after")
    def one_way_to_say_it(self) -> Self:
        if (self.method is None) == (self.stages is None):
            raise ValueError("give either method or stages, not both and not neither")
        if self.compute.compile and self.resources.gpus_per_worker == 0:
            raise ValueError(
                "compute.compile needs resources.gpus_per_worker above 0: compiled for CPUs, torch's gradients of a "
                "UNet were measured to be off by percents; leave it false"
            )
        for i, stage in enumerate(self.chain()):
            method, workers = stage.method, self.resources.workers
            if wrong := self.compute.misfit(method):
                raise ValueError(f"{wrong} of stage {i}")
            if method.batch_size % (workers * method.micro_batches):
                raise ValueError(
                    f"batch_size ({method.batch_size}) of stage {i} must be a multiple of resources.workers "
                    f"({workers}) times micro_batches ({method.micro_batches}), since each part takes an equal share"
                )
        return self

    def chain(self) -> list[Stage]:
        """The stages in order; a spec with a single `method` is one stage."""
        if self.stages is not None:
            return self.stages
        assert self.method is not None
        return [Stage(method=self.method)]

    def total_steps(self) -> int:
        """Optimizer steps over all stages."""
        return sum(stage.method.total_steps() for stage in self.chain())

    def resolved(self) -> "JobSpec":
        """The same job with its stages written out and every default in place."""
        return self.model_copy(update={"method": None, "stages": self.chain()})
