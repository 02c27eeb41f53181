"""Settings of progressive adversarial distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, Passes
from service.methods.templates import LadderSettings, NoisedCriticSettings, TrunkCriticSettings


class LightningSettings(LadderSettings, NoisedCriticSettings, TrunkCriticSettings):
    """Progressive distillation whose lower rungs learn from a critic of steps."""

    kind: Literal["lightning"] = "lightning"
    title: ClassVar[str] = "Progressive adversarial distillation (Lightning)"
    family: ClassVar[Family] = "adversarial"
    paper: ClassVar[str] = "arXiv:2402.13929"
    summary: ClassVar[str] = "Each rung halves the steps; below the first, a critic compares the steps' landings."
    forwards: ClassVar[float] = 2.25
    backwards: ClassVar[float] = 1.5
    known_limit: ClassVar[str] = (
        "On the digits its single step stays behind: two minutes are short for the last rung. Learning rates from 1e-4 "
        "to 5e-4, more R1 and a larger conditional share were tried."
    )
    networks: ClassVar[int] = 5
    trained_networks: ClassVar[int] = 2

    learning_rate: float = Field(2e-4, gt=0, le=1, description="Peak learning rate of the student's optimizer.")
    first_steps: int = Field(4, ge=1, le=1024, description="Sampling steps of the first rung's student.")
    rung_iterations: int = Field(
        130, ge=1, le=1_000_000, description="Optimizer steps per rung; the last two rungs take twice as many."
    )
    conditional_share: float = Field(
        0.5, ge=0, le=1, description="Share of a rung in which the critic also sees where the step came from."
    )
    critic_learning_rate: float = Field(1e-3, gt=0, le=1, description="Learning rate of the critic.")
    r1_weight: float = Field(
        0.05, ge=0, le=10_000, description="Weight of the penalty on the critic's slope; 0 is off."
    )

    def passes(self) -> Passes:
        """Of the critic's turn on the lower rungs: of two steps and a nudged one, each with where it came from."""
        return Passes(trained=3.0)
