"""Settings of Align Your Flow."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import FlowMapSettings, TangentSettings


class AYFSettings(TangentSettings, FlowMapSettings):
    """Distil the flow map between any two times, by how it must change with one of them."""

    kind: Literal["ayf"] = "ayf"
    title: ClassVar[str] = "Align Your Flow"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2506.14603"
    summary: ClassVar[str] = "A flow map is distilled through its derivative in the time it starts from, or leads to."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(1300, ge=1, le=10_000_000, description="Optimizer steps.")
    objective: Literal["eulerian", "lagrangian"] = Field(
        "eulerian", description="Whether the step's start moves along the flow, or its end."
    )
    tangent_warmup: int = Field(
        200,
        ge=0,
        le=10_000_000,
        description="Steps over which the part of the tangent that holds the derivative grows.",
    )
