"""Settings of phased consistency distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import CriticSettings, SelfConsistencySettings


class PCMSettings(CriticSettings, SelfConsistencySettings):
    """Consistency within each of a few phases of the trajectory, so that sampling needs no fresh noise."""

    kind: Literal["pcm"] = "pcm"
    title: ClassVar[str] = "Phased consistency (PCM)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2405.18407"
    summary: ClassVar[str] = "Each phase of a trajectory leads to its own edge; one deterministic step per phase."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0

    phases: int = Field(4, ge=1, le=50, description="Phases of a trajectory, M in the paper: the student's steps.")
    phase_steps: int = Field(8, ge=1, le=1000, description="Intervals of the time grid within each phase.")
    gan_weight: float = Field(0.0, ge=0, le=10, description="Weight of the adversarial term; the paper has 0.1.")
    gan_loss: Literal["non_saturating", "hinge"] = Field(
        "hinge", description="What the critic descends, and what the student descends in answer."
    )
    critic_learning_rate: float = Field(1e-3, gt=0, le=1, description="Learning rate of the critic.")

    def student_steps(self) -> list[list[int]]:
        return [[self.phases]]
