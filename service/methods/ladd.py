"""Settings of latent adversarial diffusion distillation."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import DataNeed, Family, PairSettings
from service.methods.templates import AdversarialSettings


class LADDSettings(AdversarialSettings, PairSettings):
    """A critic that reads the frozen teacher's features is all that the student learns from."""

    kind: Literal["ladd"] = "ladd"
    title: ClassVar[str] = "Latent adversarial distillation (LADD)"
    family: ClassVar[Family] = "adversarial"
    paper: ClassVar[str] = "arXiv:2403.12015"
    data_need: ClassVar[DataNeed] = "pairs"
    summary: ClassVar[str] = "A critic on the teacher's own features tells the student's images from the teacher's."
    forwards: ClassVar[float] = 4.0
    backwards: ClassVar[float] = 3.0
    known_limit: ClassVar[str] = (
        "On the digits the steps after the first add noise. R1 from 0 to 1, coarser and finer noise for the critic, "
        "momentum, more of its updates, lower learning rates, longer averages and two steps in place of four were "
        "tried; a longer average mends two steps (ratio 1.7) and not four."
    )

    real: Literal["teacher", "images"] = Field(
        "teacher", description="What the critic holds to be real: images that the teacher makes first, or given ones."
    )
    pairs: int = Field(2048, ge=1, le=100_000_000, description="Images that the teacher makes before training starts.")
    pair_steps: int = Field(8, ge=1, le=1000, description="Steps of the teacher's second-order solver for each.")
    level_mean: float = Field(-1.5, ge=-10, le=10, description="Mean of the logit of the critic's noise levels.")
    level_std: float = Field(1.0, gt=0, le=10, description="Standard deviation of that logit.")

    def data(self) -> DataNeed:
        return "pairs" if self.real == "teacher" else "images"
