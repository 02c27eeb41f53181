"""Settings of easy consistency tuning."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import SharedNoiseSettings


class ECTSettings(SharedNoiseSettings):
    """From the training of a diffusion model to that of a consistency model, as two times close in on each other."""

    kind: Literal["ect"] = "ect"
    title: ClassVar[str] = "Easy consistency tuning (ECT)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2406.14548"
    summary: ClassVar[str] = "Diffusion training turns into consistency training, as two times close in on each other."
    forwards: ClassVar[float] = 2.0
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(500, ge=1, le=10_000_000, description="Optimizer steps.")
    quotient: float = Field(2.0, gt=1, le=1000, description="How much closer each part of training comes; q.")
    parts: int = Field(4, ge=1, le=100, description="Parts of the training; the two times are q^-a t apart in part a.")
    log_sigma_mean: float = Field(0.0, ge=-10, le=10, description="Of the lognormal noise level, P_mean in the paper.")
    log_sigma_std: float = Field(1.6, gt=0, le=10, description="Of the lognormal noise level, P_std in the paper.")
