"""Settings of consistency distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family, MethodSettings


class ConsistencySettings(MethodSettings):
    """Points of one teacher trajectory share their end point: the student maps each of them there."""

    kind: Literal["consistency"] = "consistency"
    title: ClassVar[str] = "Consistency distillation"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2303.01469"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "Neighbouring points of a teacher trajectory are mapped to one clean image."
    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 1

    iterations: int = Field(1000, ge=1, le=10_000_000, description="Optimizer steps.")
    grid_steps: int = Field(32, ge=2, le=1000, description="Intervals of the time grid, N in the paper.")
    target_decay: float = Field(0.95, ge=0, lt=1, description="EMA decay of the target network, mu in the paper.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[1, 2, 4]]
