"""Settings of MeanFlow."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import FlowMapSettings, TangentSettings


class MeanFlowSettings(TangentSettings, FlowMapSettings):
    """Learn the average velocity between two times, from its own derivative."""

    kind: Literal["meanflow"] = "meanflow"
    title: ClassVar[str] = "MeanFlow"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2505.13447"
    summary: ClassVar[str] = "The student learns the average velocity between any two times of the flow."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(1300, ge=1, le=10_000_000, description="Optimizer steps.")
    equal_share: float = Field(
        0.25, ge=0, lt=1, description="Share of the batch with both times equal, where the average is the velocity."
    )
    power: float = Field(
        0.5, ge=0, le=1, description="Of the adaptive weight 1/(error + c)^p, p in the paper; 0: none."
    )
