"""Settings of consistency training."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import AveragedTargetSettings, SharedNoiseSettings


class CTSettings(AveragedTargetSettings, SharedNoiseSettings):
    """Consistency without a teacher in the loss: neighbouring points share an image and its noise."""

    kind: Literal["ct"] = "ct"
    title: ClassVar[str] = "Consistency training (CT)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2303.01469"
    summary: ClassVar[str] = "One image under two levels of the same noise is mapped to one clean image."
    forwards: ClassVar[float] = 2.0
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(500, ge=1, le=10_000_000, description="Optimizer steps.")
    target_decay: float = Field(
        0.5, ge=0, lt=1, description="EMA decay of the target network at first, mu_0 in the paper; it grows with N."
    )
    first_steps: int = Field(2, ge=1, le=1000, description="Intervals of the time grid at first, s_0 in the paper.")
    last_steps: int = Field(32, ge=1, le=1000, description="Intervals of the time grid at last, s_1 in the paper.")
