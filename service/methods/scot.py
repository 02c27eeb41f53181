"""Settings of straight consistent trajectories."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, Passes
from service.methods.templates import SoftConsistencySettings


class SCoTSettings(SoftConsistencySettings):
    """A consistent trajectory that is straight as well."""

    kind: Literal["scot"] = "scot"
    title: ClassVar[str] = "Straight consistent trajectories (SCoT)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2502.16972"
    summary: ClassVar[str] = "A consistent map from any time to any earlier one, whose way there has one velocity."
    forwards: ClassVar[float] = 7.0
    backwards: ClassVar[float] = 1.75

    iterations: int = Field(600, ge=1, le=10_000_000, description="Optimizer steps.")
    velocity_weight: float = Field(
        0.1, ge=0, le=100, description="Weight of the difference between the map's velocity and a constant one."
    )

    def passes(self) -> Passes:
        return Passes(trained=1.5, through=0.45)
