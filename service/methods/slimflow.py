"""Settings of SlimFlow."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import StraightSettings


class SlimFlowSettings(StraightSettings):
    """Reflow that starts out as ordinary training, then one step guided by the flow that was learnt."""

    kind: Literal["slimflow"] = "slimflow"
    title: ClassVar[str] = "SlimFlow"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2407.12718"
    summary: ClassVar[str] = "Annealing reflow, then one step, guided by two steps of that flow; for smaller students."
    forwards: ClassVar[float] = 1.5
    backwards: ClassVar[float] = 1.0
    networks: ClassVar[int] = 4

    iterations: int = Field(600, ge=1, le=10_000_000, description="Optimizer steps of the annealing reflow.")
    annealing: float = Field(
        0.3, ge=0, le=1, description="Share of the reflow in which the noises go from random ones to the pairs' own."
    )
    distil_iterations: int = Field(400, ge=1, le=10_000_000, description="Optimizer steps of the distillation after.")
    flow_guided: float = Field(
        0.5, ge=0, le=1, description="Share of the distillation's samples that learn two steps of the flow, not pairs."
    )

    def total_steps(self) -> int:
        return self.iterations + self.distil_iterations

    def student_steps(self) -> list[list[int]]:
        """The straightened flow, and its distillation."""
        return [[4, 2], [1]]
