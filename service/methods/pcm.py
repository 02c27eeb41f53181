"""Settings of phased consistency distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, SelfConsistencySettings


class PCMSettings(SelfConsistencySettings):
    """Consistency within each of a few phases of the trajectory, so that sampling needs no fresh noise."""

    kind: Literal["pcm"] = "pcm"
    title: ClassVar[str] = "Phased consistency (PCM)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2405.18407"
    summary: ClassVar[str] = "Each phase of a trajectory leads to its own edge; one deterministic step per phase."

    phases: int = Field(4, ge=1, le=50, description="Phases of a trajectory, M in the paper: the student's steps.")
    phase_steps: int = Field(8, ge=1, le=1000, description="Intervals of the time grid within each phase.")

    def student_steps(self) -> list[list[int]]:
        return [[self.phases]]
