"""Settings of multistep distillation by moment matching."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family
from service.methods.templates import ScoreSettings


class MomentMatchingSettings(ScoreSettings):
    """Match the mean of the clean image given the noisy one, along the student's own sampling steps."""

    kind: Literal["moment_matching"] = "moment_matching"
    title: ClassVar[str] = "Moment matching"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2406.04103"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "What a noisy image says about the clean one is the same along the student's steps."
    fits_flows: ClassVar[bool] = False
    forwards: ClassVar[float] = 12.0
    backwards: ClassVar[float] = 4.0
    known_limit: ClassVar[str] = "One step cannot draw from the posterior: the method is made for four and more."

    steps: int = Field(4, ge=1, le=16, description="Ancestral sampling steps of the student, k in the paper.")

    def cost(self) -> tuple[float, float]:
        """Each turn of the auxiliary network's costs as much, whatever the steps: a pass through student and teacher
        beside its own."""
        share = self.fake_updates / type(self).model_fields["fake_updates"].default
        return 3 + (self.forwards - 3) * share, 1 + (self.backwards - 1) * share

    def student_steps(self) -> list[list[int]]:
        """One student, for its own steps alone: fewer are longer ones, which it has not seen."""
        return [[self.steps]]
