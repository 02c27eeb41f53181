"""Settings of Diff-Instruct."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import ScoreSettings


class DiffInstructSettings(ScoreSettings):
    """Descend the integral of KL(student, teacher) over noise levels, drawn log-normally."""

    kind: Literal["diff_instruct"] = "diff_instruct"
    title: ClassVar[str] = "Diff-Instruct"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2305.18455"
    summary: ClassVar[str] = (
        "The plain difference of two denoisers, the teacher and one of the samples, moves each sample."
    )
    forwards: ClassVar[float] = 9.0
    backwards: ClassVar[float] = 4.0

    noise_mean: float = Field(-0.4, ge=-10, le=10, description="Mean of the log of noise over signal, P_mean.")
    noise_std: float = Field(1.2, gt=0, le=10, description="Its standard deviation, P_std.")
