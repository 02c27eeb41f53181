"""Settings of score distillation via inversion."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, GeneratorSettings


class SDISettings(GeneratorSettings):
    """Score distillation with the noise that leads to the sample, from high noise levels down to low ones."""

    kind: Literal["sdi"] = "sdi"
    title: ClassVar[str] = "Score distillation via inversion (SDI)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2405.15891"
    summary: ClassVar[str] = "Score distillation with noise from DDIM inversion, which makes it DDIM on clean images."
    forwards: ClassVar[float] = 12.0
    backwards: ClassVar[float] = 1.0
    known_limit: ClassVar[str] = (
        "Made to optimise one image: a generator ends near the modes of the teacher, with little diversity."
    )

    inversion_steps: int = Field(
        10, ge=1, le=1000, description="DDIM steps of an inversion up to pure noise; up to time t, t times as many."
    )
    inversion_guidance_scale: float = Field(
        1.0, ge=-100, le=100, description="Guidance of the inversion; the paper's is the negative of the teacher's."
    )
