"""Settings of consistency trajectory models."""

from typing import ClassVar, Literal

from service.methods.base import Family, Passes
from service.methods.templates import SoftConsistencySettings


class CTMSettings(SoftConsistencySettings):
    """Any time of a trajectory to any earlier one, made consistent at the clean end."""

    kind: Literal["ctm"] = "ctm"
    title: ClassVar[str] = "Consistency trajectory models (CTM)"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2310.02279"
    summary: ClassVar[str] = "A jump to any earlier time ends where a jump does that starts further on, by the teacher."
    forwards: ClassVar[float] = 6.75
    backwards: ClassVar[float] = 1.5

    def passes(self) -> Passes:
        return Passes(trained=1.25, through=0.45)
