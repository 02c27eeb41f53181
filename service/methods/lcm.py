"""Settings of latent consistency distillation."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.methods.base import Family
from service.methods.templates import AveragedTargetSettings


class LCMSettings(AveragedTargetSettings):
    """Consistency distillation of a guided teacher, over several steps of a fine grid at once."""

    kind: Literal["lcm"] = "lcm"
    title: ClassVar[str] = "Latent consistency (LCM)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2310.04378"
    summary: ClassVar[str] = "Consistency distillation of the guided teacher, skipping steps of a fine time grid."
    needs_own_network: ClassVar[bool] = True
    forwards: ClassVar[float] = 4.0
    backwards: ClassVar[float] = 1.0

    guidance_scale: float = Field(
        1.5, ge=0, le=100, description="Classifier-free guidance that the student learns, u + g(c - u); 1 is off."
    )
    iterations: int = Field(1300, ge=1, le=10_000_000, description="Optimizer steps.")
    guidance_spread: float = Field(
        0.0,
        ge=0,
        le=100,
        description="The student learns all scales up to so far from guidance_scale, and is exported for that one.",
    )
    grid_steps: int = Field(1000, ge=2, le=1000, description="Intervals of the time grid, N in the paper.")
    skip: int = Field(32, ge=1, le=1000, description="Intervals between a point and its target, k in the paper.")

    def own_network(self) -> bool:
        return self.guidance_spread > 0

    def guidance(self) -> dict[str, float]:
        return super().guidance() | ({"guidance_spread": 0} if self.guidance_spread > 0 else {})

    @model_validator(mode="after")
    def within_bounds(self) -> "LCMSettings":
        if self.guidance_spread > self.guidance_scale:
            raise ValueError(
                f"guidance_spread ({self.guidance_spread:g}) must not be above guidance_scale "
                f"({self.guidance_scale:g}): scales start at 0"
            )
        if self.skip > self.grid_steps:
            raise ValueError(f"skip ({self.skip}) must not be above grid_steps ({self.grid_steps})")
        return self
