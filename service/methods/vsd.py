"""Settings of variational score distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import ScoreSettings


class VSDSettings(ScoreSettings):
    """Score distillation in which the samples' own score takes the place of the injected noise."""

    kind: Literal["vsd"] = "vsd"
    title: ClassVar[str] = "Variational score distillation (VSD)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2305.16213"
    summary: ClassVar[str] = "The teacher's noise prediction, less that of the samples' own score; coarse levels first."
    forwards: ClassVar[float] = 9.0
    backwards: ClassVar[float] = 4.0

    anneal_at: float = Field(
        0.7, ge=0, le=1, description="Share of the steps after which only the lower half of the noise levels is drawn."
    )
