"""Settings of InstaFlow."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import StraightSettings


class InstaFlowSettings(StraightSettings):
    """Reflow of a guided teacher, then distillation of the straightened flow into one step."""

    kind: Literal["instaflow"] = "instaflow"
    title: ClassVar[str] = "InstaFlow"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2309.06380"
    summary: ClassVar[str] = "Reflow with guided pairs, and then one step from each noise to its image."
    forwards: ClassVar[float] = 1.0
    backwards: ClassVar[float] = 1.0

    guidance_scale: float = Field(
        1.5, ge=0, le=100, description="Classifier-free guidance of the teacher, u + g(c - u); 1 is off."
    )
    iterations: int = Field(600, ge=1, le=10_000_000, description="Optimizer steps of the reflow.")
    distil_iterations: int = Field(500, ge=1, le=10_000_000, description="Optimizer steps of the distillation after.")

    def total_steps(self) -> int:
        return self.iterations + self.distil_iterations

    def student_steps(self) -> list[list[int]]:
        """The straightened flow, and its distillation."""
        return [[4, 2], [1]]
