"""Settings of distribution matching distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import CriticSettings, Family, ScoreSettings


class DMD2Settings(ScoreSettings, CriticSettings):
    """Match the student's distribution to the teacher's by the difference of two scores."""

    kind: Literal["dmd2"] = "dmd2"
    title: ClassVar[str] = "Distribution matching (DMD2)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2405.14867"
    summary: ClassVar[str] = "The student follows the teacher's score minus the score of its own samples."

    gan_weight: float = Field(0.0, ge=0, le=10, description="Weight of the adversarial term; 0 needs no images.")
