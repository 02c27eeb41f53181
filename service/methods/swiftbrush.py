"""Settings of SwiftBrush."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import ScoreSettings


class SwiftBrushSettings(ScoreSettings):
    """Variational score distillation of a generator that takes one step from pure noise."""

    kind: Literal["swiftbrush"] = "swiftbrush"
    title: ClassVar[str] = "SwiftBrush"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2312.05239"
    summary: ClassVar[str] = "Variational score distillation without images, for a generator of one step."
    forwards: ClassVar[float] = 9.0
    backwards: ClassVar[float] = 4.0

    fake_guidance_scale: float = Field(
        1.0, ge=0, le=100, description="Classifier-free guidance of the fake score, as of the teacher; 1 is off."
    )
