"""Settings of simplified continuous-time consistency models."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import TangentSettings


class SCMSettings(TangentSettings):
    """Neighbouring points of a trajectory share their end point, in the limit of infinitely near neighbours."""

    kind: Literal["scm"] = "scm"
    title: ClassVar[str] = "Continuous-time consistency (sCM)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2410.11081"
    summary: ClassVar[str] = "A consistency model without a time grid: its end point must not change along the flow."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0

    learning_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate of the student's optimizer.")
    iterations: int = Field(700, ge=1, le=10_000_000, description="Optimizer steps.")
    difference_step: float | None = Field(
        0.05,
        gt=0,
        le=0.5,
        description="Width, in log(sigma/alpha), of the difference that stands for the derivative in time: a wider one "
        "is off by more, and what it is off by adds up along the trajectory; null takes the exact derivative.",
    )
    tangent_warmup: int = Field(
        200,
        ge=0,
        le=10_000_000,
        description="Steps over which the part of the tangent that holds the derivative grows.",
    )
    learned_weight: bool = Field(
        False, description="Weigh the times by a small network that learns how large the error is, in turns."
    )

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[1, 2, 4]]
