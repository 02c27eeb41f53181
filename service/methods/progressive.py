"""Settings of progressive distillation."""

from typing import ClassVar, Literal

from service.methods.base import Family, FeatureSettings
from service.methods.templates import LadderSettings


class ProgressiveSettings(FeatureSettings, LadderSettings):
    """Halve the sampler's steps, stage by stage: one student step learns two of its teacher's."""

    kind: Literal["progressive"] = "progressive"
    title: ClassVar[str] = "Progressive distillation"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2202.00512"
    summary: ClassVar[str] = "Each rung halves the steps: one student step lands where two teacher steps do."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0
