"""Settings of score identity distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, Passes
from service.methods.templates import ScoreSettings


class SiDSettings(ScoreSettings):
    """Match the student's score to the teacher's, in a form that needs no score of the student's exact density."""

    kind: Literal["sid"] = "sid"
    title: ClassVar[str] = "Score identity distillation (SiD)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2404.04057"
    summary: ClassVar[str] = "The squared distance of two scores falls, with gradients through both score networks."
    forwards: ClassVar[float] = 9.0
    backwards: ClassVar[float] = 6.0

    alpha: float = Field(
        1.0, ge=0.5, le=1.5, description="Share of the squared distance that is taken off, alpha in the paper."
    )

    def passes(self) -> Passes:
        """Of the student's turn: through both scores."""
        return Passes(through=2.0)
