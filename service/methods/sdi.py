"""Settings of score distillation via inversion."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import GeneratorSettings


class SDISettings(GeneratorSettings):
    """Score distillation with the noise that leads to the sample, from high noise levels down to low ones."""

    kind: Literal["sdi"] = "sdi"
    title: ClassVar[str] = "Score distillation via inversion (SDI)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2405.15891"
    summary: ClassVar[str] = "Score distillation with the noise that inversion finds for a sample, which makes it DDIM."
    forwards: ClassVar[float] = 6.0
    backwards: ClassVar[float] = 1.0

    iterations: int = Field(420, ge=1, le=10_000_000, description="Optimizer steps of the student.")
    inversion: Literal["fixed_point", "ddim"] = Field(
        "fixed_point",
        description="How a sample's noise is found: from the noise that it was made of, or by DDIM upwards from the "
        "sample alone, as in the paper, with which all samples of a class stay alike.",
    )
    inversion_steps: int = Field(4, ge=1, le=1000, description="Evaluations of the teacher for one inversion.")
    inversion_guidance_scale: float = Field(
        1.0, ge=-100, le=100, description="Guidance of the inversion; the paper's is the negative of the teacher's."
    )
