"""Settings of improved consistency training."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.methods.base import Family
from service.methods.templates import SharedNoiseSettings


class ICTSettings(SharedNoiseSettings):
    """Consistency training with no averaged target, a robust loss and a grid that doubles."""

    kind: Literal["ict"] = "ict"
    title: ClassVar[str] = "Improved consistency training (iCT)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2310.14189"
    summary: ClassVar[str] = "Consistency training with lognormal noise levels, on a time grid that doubles."
    forwards: ClassVar[float] = 2.0
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(500, ge=1, le=10_000_000, description="Optimizer steps.")
    first_steps: int = Field(10, ge=1, le=10_000, description="Intervals of the time grid at first, s_0 in the paper.")
    last_steps: int = Field(160, ge=1, le=10_000, description="Intervals of the time grid at last, s_1 in the paper.")
    log_sigma_mean: float = Field(0.0, ge=-10, le=10, description="Of the lognormal noise level, P_mean in the paper.")
    log_sigma_std: float = Field(1.6, gt=0, le=10, description="Of the lognormal noise level, P_std in the paper.")

    @model_validator(mode="after")
    def growing(self) -> "ICTSettings":
        if self.last_steps < self.first_steps:
            raise ValueError(f"last_steps ({self.last_steps}) must not be below first_steps ({self.first_steps})")
        return self
