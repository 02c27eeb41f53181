"""Settings of BOOT."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family
from service.methods.templates import FlowMapSettings


class BootSettings(FlowMapSettings):
    """Follow the signal of the teacher's way from one noise, each time from the student's own answer just above."""

    kind: Literal["boot"] = "boot"
    title: ClassVar[str] = "Bootstrapping (BOOT)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2306.05544"
    data_need: ClassVar[DataNeed] = "none"
    summary: ClassVar[str] = "The signal in a noise, at each time one teacher step on from the student's own answer."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0
    networks: ClassVar[int] = 3

    iterations: int = Field(1000, ge=1, le=10_000_000, description="Optimizer steps.")
    grid_steps: int = Field(16, ge=1, le=1000, description="Steps of the teacher from noise to image.")
    boundary_share: float = Field(
        0.1, ge=0, lt=1, description="Share of each batch that learns where the way starts, the teacher's first answer."
    )

    def student_steps(self) -> list[list[int]]:
        return [[1]]
