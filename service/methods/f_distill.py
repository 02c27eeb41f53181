"""Settings of f-divergence distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family
from service.methods.templates import AdversarialScoreSettings

Divergence = Literal["reverse_kl", "softened_rkl", "js", "squared_hellinger", "forward_kl", "jeffreys"]


class FDistillSettings(AdversarialScoreSettings):
    """Match the student's distribution to the teacher's in the f-divergence of your choice."""

    kind: Literal["f_distill"] = "f_distill"
    title: ClassVar[str] = "f-divergence matching (f-distill)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2502.15681"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "The difference of two scores, weighted by how much rarer the student makes a sample."
    forwards: ClassVar[float] = 12.5
    backwards: ClassVar[float] = 7.0

    divergence: Divergence = Field(
        "js", description="From the most mode-seeking to the most mode-covering; reverse_kl is DMD2's."
    )
    gan_weight: float = Field(
        0.0, ge=0, le=10, description="Weight of the adversarial term; the critic is trained in any case."
    )
