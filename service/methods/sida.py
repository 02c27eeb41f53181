"""Settings of adversarial score identity distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family, Passes
from service.methods.templates import AdversarialScoreSettings


class SiDASettings(AdversarialScoreSettings):
    """Score identity distillation, corrected by images where the teacher is wrong."""

    kind: Literal["sida"] = "sida"
    title: ClassVar[str] = "Adversarial score identity distillation (SiDA)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2410.14919"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "Score identity distillation, with a critic that is the fake score's own first half."
    forwards: ClassVar[float] = 12.5
    backwards: ClassVar[float] = 9.5

    alpha: float = Field(
        1.0, ge=0.5, le=1.5, description="Share of the squared distance that is taken off, alpha in the paper."
    )
    gan_weight: float = Field(0.1, ge=0, le=10, description="Weight of the adversarial half against the other half.")

    def passes(self) -> Passes:
        """Of the student's turn: through both scores and the critic."""
        return Passes(through=2.5)
