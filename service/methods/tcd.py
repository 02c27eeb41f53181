"""Settings of trajectory consistency distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import AveragedTargetSettings


class TCDSettings(AveragedTargetSettings):
    """The student jumps from any point of a trajectory to any other below it, by DDIM."""

    kind: Literal["tcd"] = "tcd"
    title: ClassVar[str] = "Trajectory consistency (TCD)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2402.19159"
    summary: ClassVar[str] = "Neighbouring points of a trajectory lead to one point anywhere below them."
    fits_flows: ClassVar[bool] = False
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0

    grid_steps: int = Field(32, ge=2, le=1000, description="Intervals of the time grid, N in the paper.")

    def student_steps(self) -> list[list[int]]:
        return [[4, 2, 8]]
