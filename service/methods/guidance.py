"""Settings of the distillation of guidance."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.methods.base import DataNeed, Family, MethodSettings
from service.methods.templates import GuidanceRange


class GuidanceSettings(GuidanceRange, MethodSettings):
    """One evaluation in place of two: the student learns the guided teacher, at every scale of a range."""

    kind: Literal["guidance"] = "guidance"
    title: ClassVar[str] = "Guidance distillation"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2210.03142"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "One evaluation gives what guidance takes two for; progressive then halves the steps."
    needs_own_network: ClassVar[bool] = True
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0
    needs_classes: ClassVar[bool] = True
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    guidance_scale: float = Field(
        1.5, ge=0, le=100, description="The scale of the exported student, within the range that it learns."
    )
    steps: int = Field(16, ge=1, le=1000, description="Sampling steps of the exported student.")
    iterations: int = Field(600, ge=1, le=10_000_000, description="Optimizer steps.")

    @model_validator(mode="after")
    def exports_what_it_learns(self) -> "GuidanceSettings":
        if not self.low_guidance <= self.guidance_scale <= self.high_guidance:
            raise ValueError(
                f"guidance_scale ({self.guidance_scale:g}) must lie between low_guidance ({self.low_guidance:g}) and "
                f"high_guidance ({self.high_guidance:g}): other scales are not learnt"
            )
        return self

    def own_network(self) -> bool:
        return self.low_guidance < self.high_guidance

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[self.steps]]
