"""Settings of EM distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import ScoreSettings


class EMDSettings(ScoreSettings):
    """Maximum likelihood of the student on what the teacher would say, by expectation and maximisation."""

    kind: Literal["emd"] = "emd"
    title: ClassVar[str] = "EM distillation"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2405.16852"
    summary: ClassVar[str] = "Langevin steps move noise and sample to where the teacher is; the student follows."
    forwards: ClassVar[float] = 13.0
    backwards: ClassVar[float] = 6.0

    steps: int = Field(1, ge=1, le=1, description="Sampling steps of the student; the method makes one-step students.")
    langevin_steps: int = Field(
        2, ge=1, le=100, description="Steps of the E-step, K in the paper; 1 is Diff-Instruct, up to its weighting."
    )
    noise_step: float = Field(0.05, gt=0, lt=1, description="Size of a Langevin step of the noise epsilon.")
    latent_step: float = Field(
        1e-4, ge=0, lt=1, description="Size of a Langevin step of the latent z; 0 leaves z where it is."
    )
