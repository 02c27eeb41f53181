"""What a check of a job's spec answers: the defaults that would apply, and what the job would cost."""

from typing import Literal

from pydantic import Field

from api.schemas import Answer
from service.memory import Phase
from service.spec import JobSpec


class MemoryView(Answer):
    """Bytes of one worker at the peak, by what takes them."""

    weights: int = Field(description="All networks that are held, their averages, and students that are set aside.")
    optimizer: int
    gradients: int
    activations: int = Field(description="Whatever comes and goes: in training passes, previews and exchanges.")
    encoders: int = Field(description="Text encoders, VAE and encoded prompts.")


class Validation(Answer):
    """The answer of `POST /v1/jobs:validate` for a spec that would be accepted."""

    valid: Literal[True] = True
    spec: JobSpec = Field(description="With every default written out.")
    total_steps: int
    students: list[list[int]] = Field(description="The students it would leave: for each the steps it is made for.")
    estimated_memory_bytes: int | None = Field(
        None, description="Peak per worker; null for a teacher that was registered before this was estimated."
    )
    memory: MemoryView | None = Field(None, description="The parts of that peak.")
    memory_phase: Phase | None = Field(
        None,
        description="When it is reached: before the first step, in the stage that needs most, or while students are "
        "judged and exported.",
    )
    step_flops: int | None = Field(None, description="Operations of one worker in an optimizer step of the student.")
    step_seconds: float | None = Field(
        None,
        description="Their time at the speed that the operator says devices keep up (FEWSTEP_DEVICE_TFLOPS), without "
        "data and exchange between workers; null where none is said.",
    )
    advice: list[str] = Field(
        default_factory=list,
        description="Changes that make it fit into a device (FEWSTEP_DEVICE_MEMORY_GIB), a sentence each with what it "
        "then needs, or one that says that none do; empty where it fits, and where no size is said.",
    )
