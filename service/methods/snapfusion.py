"""Settings of SnapFusion's step distillation."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.methods.base import Family
from service.methods.templates import GuidanceRange, LadderSettings


class SnapFusionSettings(GuidanceRange, LadderSettings):
    """Halve the sampler's steps, for a student that is guided itself."""

    kind: Literal["snapfusion"] = "snapfusion"
    title: ClassVar[str] = "SnapFusion (CFG-aware progressive)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2306.00980"
    summary: ClassVar[str] = "Each rung halves the steps, and some batches compare guided steps with a guided step."
    known_limit: ClassVar[str] = (
        "No one guided step ends where two do at every scale, and the gap grows with the step, so it is for four steps "
        "or more: at one step its Fréchet distance was 30 times the teacher's."
    )
    forwards: ClassVar[float] = 3.5
    backwards: ClassVar[float] = 1.25
    needs_classes: ClassVar[bool] = True

    last_steps: int = Field(4, ge=1, le=1024, description="Sampling steps of the last rung's student.")
    cfg_probability: float = Field(0.2, ge=0, le=1, description="Share of the batches that have the CFG-aware loss.")

    @model_validator(mode="after")
    def guides_itself(self) -> "SnapFusionSettings":
        if self.guidance_scale != 1:
            raise ValueError(
                f"guidance_scale ({self.guidance_scale:g}) must be 1: this student is not taught one scale, it is "
                "guided when it is run; low_guidance and high_guidance say how far"
            )
        return self
