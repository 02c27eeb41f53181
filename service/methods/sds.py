"""Settings of score distillation sampling."""

from typing import ClassVar, Literal

from service.methods.base import Family
from service.methods.templates import GeneratorSettings


class SDSSettings(GeneratorSettings):
    """Samples move to where the teacher would denoise them to; nothing keeps them apart."""

    kind: Literal["sds"] = "sds"
    title: ClassVar[str] = "Score distillation sampling (SDS)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2209.14988"
    summary: ClassVar[str] = "The teacher's noise prediction, less the noise that was injected, moves each sample."
    forwards: ClassVar[float] = 2.0
    backwards: ClassVar[float] = 1.0
    known_limit: ClassVar[str] = (
        "Made to optimise one image: a generator ends with one image for each class, nearly without diversity."
    )
