"""Settings of UFOGen."""

from typing import ClassVar, Literal

from pydantic import Field

from service.methods.base import Family, Passes
from service.methods.templates import AdversarialSettings, TrunkCriticSettings


class UFOGenSettings(AdversarialSettings, TrunkCriticSettings):
    """A diffusion GAN whose samples are compared where the sampler goes on from them."""

    kind: Literal["ufogen"] = "ufogen"
    title: ClassVar[str] = "UFOGen"
    family: ClassVar[Family] = "adversarial"
    paper: ClassVar[str] = "arXiv:2311.09257"
    summary: ClassVar[str] = (
        "A diffusion GAN: a critic of the sampler's next noise level, and a pull towards the image."
    )
    forwards: ClassVar[float] = 4.0
    backwards: ClassVar[float] = 3.0
    known_limit: ClassVar[str] = (
        "On the digits it is slow: the noise of the next sampling time hides most of what its critic could see. More "
        "reconstruction (1 and 5), lower learning rates and a longer average were tried."
    )
    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 2

    iterations: int = Field(900, ge=1, le=10_000_000, description="Optimizer steps of the student.")
    reconstruction_weight: float = Field(
        0.1, ge=0, le=1000, description="Weight of the squared distance to the image that was noised, gamma."
    )

    def student_steps(self) -> list[list[int]]:
        """No other number of steps: what the critic compares are the inputs of the very next one."""
        return [[self.steps]]

    def passes(self) -> Passes:
        """Of the critic's turn: the halves of three networks."""
        return Passes(trained=1.5)
