"""Settings of shortcut models."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family
from service.methods.templates import FlowMapSettings


class ShortcutSettings(FlowMapSettings):
    """A step is as good as its two halves, from steps as short as the teacher's up to the whole way at once."""

    kind: Literal["shortcut"] = "shortcut"
    title: ClassVar[str] = "Shortcut models"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2410.12557"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "A student that is told its step's length lands where two half steps of its own do."
    forwards: ClassVar[float] = 2.75
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(1000, ge=1, le=10_000_000, description="Optimizer steps.")
    doublings: int = Field(
        5, ge=1, le=10, description="Step lengths are 1, 1/2, 1/4, ... of the way; the teacher's step is 2^-doublings."
    )
    bootstrap_share: float = Field(
        0.75, gt=0, lt=1, description="Part of the batch that learns from half steps; the rest learns from the teacher."
    )
    target_decay: float = Field(0.95, ge=0, lt=1, description="EMA decay of the network that takes the half steps.")
