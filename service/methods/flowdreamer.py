"""Settings of FlowDreamer."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import GeneratorSettings


class FlowDreamerSettings(GeneratorSettings):
    """Score distillation in the terms of rectified flow, with the noise that belongs to each sample."""

    kind: Literal["flowdreamer"] = "flowdreamer"
    title: ClassVar[str] = "Unique couple matching (FlowDreamer)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2408.05008"
    summary: ClassVar[str] = "The teacher's velocity, less that between a sample and its own noise, moves the sample."
    forwards: ClassVar[float] = 10.0
    backwards: ClassVar[float] = 1.0
    known_limit: ClassVar[str] = (
        "Made to optimise one scene: nothing keeps the samples of a generator apart, and those of a class end as one."
    )

    inversion_steps: int = Field(8, ge=1, le=1000, description="Euler steps from a sample back to its noise.")
