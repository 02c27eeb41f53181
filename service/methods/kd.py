"""Settings of knowledge distillation from pairs."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, FeatureSettings, PairSettings


class KDSettings(FeatureSettings, PairSettings):
    """Regress to where the teacher takes each noise."""

    kind: Literal["kd"] = "kd"
    title: ClassVar[str] = "Knowledge distillation (denoising student)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2101.02388"
    summary: ClassVar[str] = "One step from pure noise regresses to the image that the teacher makes of that noise."
    forwards: ClassVar[float] = 1.0
    backwards: ClassVar[float] = 1.0
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    iterations: int = Field(1000, ge=1, le=10_000_000, description="Optimizer steps.")
    huber_c: float = Field(
        0.1, gt=0, le=1000, description="Errors well above it count like L1, errors well below it like L2."
    )

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[1]]
