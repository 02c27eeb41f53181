"""Settings of PeRFlow."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family, FeatureSettings, MethodSettings


class PeRFlowSettings(FeatureSettings, MethodSettings):
    """Cut the time into windows and make the teacher's way straight within each."""

    kind: Literal["perflow"] = "perflow"
    title: ClassVar[str] = "Piecewise rectified flow (PeRFlow)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2405.07510"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "Within each window of time the teacher's trajectory is replaced by a straight line."
    forwards: ClassVar[float] = 5.0
    backwards: ClassVar[float] = 1.0
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    windows: int = Field(4, ge=1, le=64, description="Windows of time, and sampling steps of the student.")
    window_steps: int = Field(2, ge=1, le=64, description="Steps of the teacher's second-order solver in a window.")
    iterations: int = Field(600, ge=1, le=10_000_000, description="Optimizer steps.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[self.windows]]
