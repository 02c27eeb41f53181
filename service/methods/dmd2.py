"""Settings of distribution matching distillation."""

from typing import ClassVar, Literal

from service.methods.base import Family
from service.methods.templates import AdversarialScoreSettings


class DMD2Settings(AdversarialScoreSettings):
    """Match the student's distribution to the teacher's by the difference of two scores."""

    kind: Literal["dmd2"] = "dmd2"
    title: ClassVar[str] = "Distribution matching (DMD2)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2405.14867"
    summary: ClassVar[str] = "The student follows the teacher's score minus the score of its own samples."
    forwards: ClassVar[float] = 9.0
    backwards: ClassVar[float] = 4.0
