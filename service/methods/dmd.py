"""Settings of the first distribution matching distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family, PairSettings, Passes
from service.methods.templates import ScoreSettings


class DMDSettings(ScoreSettings, PairSettings):
    """Match the student's distribution to the teacher's, and some of its samples to the teacher's own."""

    kind: Literal["dmd"] = "dmd"
    title: ClassVar[str] = "Distribution matching (DMD)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2311.18828"
    data_need: ClassVar[DataNeed] = "pairs"
    summary: ClassVar[str] = "A difference of two scores, and regression on pairs that the teacher has made."
    forwards: ClassVar[float] = 10.0
    backwards: ClassVar[float] = 5.0

    steps: int = Field(1, ge=1, le=1, description="Sampling steps of the student: pairs teach one step.")
    pairs: int = Field(2048, ge=1, le=100_000_000, description="Pairs that the teacher makes before training starts.")
    pair_steps: int = Field(8, ge=1, le=1000, description="Steps of the teacher's second-order solver for each pair.")
    regression_weight: float = Field(0.25, ge=0, le=1e3, description="Weight of the regression on pairs.")

    def passes(self) -> Passes:
        """Of the student's turn, which holds its samples and its answers to the pairs."""
        return Passes(trained=2.0)
