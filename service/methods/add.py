"""Settings of adversarial diffusion distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family
from service.methods.templates import AdversarialSettings


class ADDSettings(AdversarialSettings):
    """A critic and the teacher's opinion of the student's noised images."""

    kind: Literal["add"] = "add"
    title: ClassVar[str] = "Adversarial distillation (ADD)"
    family: ClassVar[Family] = "adversarial"
    paper: ClassVar[str] = "arXiv:2311.17042"
    summary: ClassVar[str] = "A critic, and the teacher's clean version of the student's noised images to move towards."
    forwards: ClassVar[float] = 5.0
    backwards: ClassVar[float] = 3.0
    known_limit: ClassVar[str] = (
        "On the digits the steps after the first add noise, as LADD's do, and the same was tried; more distillation "
        "makes samples class means."
    )

    gan_loss: Literal["non_saturating", "hinge"] = Field(
        "hinge", description="What the critic descends, and what the student descends in answer."
    )
    distillation_weight: float = Field(0.1, ge=0, le=1000, description="Weight of the teacher's opinion, lambda.")
