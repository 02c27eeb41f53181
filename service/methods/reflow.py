"""Settings of reflow."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import StraightSettings


class ReflowSettings(StraightSettings):
    """Learn the straight way between each noise and what the teacher makes of it."""

    kind: Literal["reflow"] = "reflow"
    title: ClassVar[str] = "Reflow (rectified flow)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2209.03003"
    summary: ClassVar[str] = "Straight lines between noises and the teacher's images become the student's trajectories."
    forwards: ClassVar[float] = 1.0
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(1100, ge=1, le=10_000_000, description="Optimizer steps along the line.")
