"""Settings of consistency distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, FeatureSettings
from service.methods.templates import AveragedTargetSettings


class ConsistencySettings(FeatureSettings, AveragedTargetSettings):
    """Points of one teacher trajectory share their end point: the student maps each of them there."""

    kind: Literal["consistency"] = "consistency"
    title: ClassVar[str] = "Consistency distillation"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2303.01469"
    summary: ClassVar[str] = "Neighbouring points of a teacher trajectory are mapped to one clean image."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0

    grid_steps: int = Field(32, ge=2, le=1000, description="Intervals of the time grid, N in the paper.")
