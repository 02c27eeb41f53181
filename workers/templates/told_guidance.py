"""Template: a student that is told the guidance scale, and gives in one evaluation what guidance takes two for."""

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from service.methods.base import MethodSettings
from workers.data.source import Batch
from workers.diffusion.guidance import guided_prediction, unguided
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.timesteps import uniform
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression

S = TypeVar("S", bound=MethodSettings)


class ToldGuidance(Regression[S]):
    """Every sample of a batch draws a guidance scale g from a range, for the teacher and for the student.

    The student is told g on a scale from 0 to 1, by the input that other students take their target time by. What is
    exported is a stock network for one g, the settings' `guidance_scale`, exact at all times. Where the range is a
    single scale there is nothing to tell, and the student is a stock network from the start.
    """

    scales_named: ClassVar[str]
    """How the settings name the range."""

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, unguided(teacher), start)
        low, high = self.scales()
        if teacher.null_label is None and not low == high == 1:
            raise ValueError(
                f"{self.scales_named} is {low:g} to {high:g}, but this teacher has no null class to guide away from: "
                "use a class-conditional teacher"
            )

    @abstractmethod
    def scales(self) -> tuple[float, float]:
        """The smallest and the largest scale."""

    @property
    def tells(self) -> bool:
        low, high = self.scales()
        return low < high

    def make_student(self, start: Denoiser) -> Denoiser:
        return start.with_target() if self.tells else super().make_student(start)

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        at = super().draw(batch, segment, rng)
        return replace(at, scale=uniform(rng.uniform(), *self.scales()))

    def guided(self, at: Draw) -> Tensor:
        """The teacher's x0 at x and t [B, ...]."""
        if self.teacher.null_label is None:  # and every scale is 1
            return self.teacher.predict(at.x, at.t, at.labels)
        assert at.labels is not None
        assert at.scale is not None
        return guided_prediction(self.teacher, at.x, at.t, at.labels, at.scale)

    def told(self, scale: Tensor) -> Tensor:
        """The scales [B] as the student is told them."""
        low, high = self.scales()
        return (scale - low) / (high - low)

    def told_x0(self, network: Denoiser, x: Tensor, t: Tensor, at: Draw) -> Tensor:
        """The x0 of a network that is told, where there is something to tell [B, ...]."""
        assert at.scale is not None
        return network.predict(x, t, at.labels, s=self.told(at.scale) if self.tells else None)

    def students(self, segment: int, average: Denoiser) -> list[tuple[SamplerSpec, Denoiser]]:
        if not self.tells:
            return super().students(segment, average)
        spec = self.sampler(segment)
        told = self.told(torch.tensor(self.settings.guidance_scale, dtype=torch.float64)).item()
        return [(spec, average.baked([(t, told) for t, _ in spec.times(spec.steps[0])]))]
