"""Distillation of guidance, Meng et al., arXiv:2210.03142: its first stage."""

from dataclasses import replace

import torch
from torch import Tensor

from service.methods import GuidanceSettings
from workers.data.source import Batch
from workers.diffusion.guidance import guided_prediction, unguided
from workers.diffusion.losses import squared, v_weight
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.timesteps import uniform
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression


class Guidance(Regression[GuidanceSettings]):
    """Section 3.1: one evaluation of the student gives the teacher's guided x0, u + g (c - u), for any g in a range.

    g, their w + 1, is told to the student on a scale from 0 to 1, by the input that other students take their target
    time by. The exported student is a stock network for one g, the settings' `guidance_scale`, exact at all times: it
    takes as many steps as the teacher, and half the evaluations. Their second stage is `progressive` as the next stage
    of a chain, for that one g. Their stochastic sampler (two steps ahead, one step of noise back) is not here: no
    stock scheduler takes such steps.
    """

    sampler_kind = "ddim"

    def __init__(self, settings: GuidanceSettings, teacher: Denoiser, start: Denoiser) -> None:
        if teacher.null_label is None and not settings.low_guidance == settings.high_guidance == 1:
            raise ValueError(
                f"low_guidance to high_guidance is {settings.low_guidance:g} to {settings.high_guidance:g}, but this "
                "teacher has no null class to guide away from: use a class-conditional teacher"
            )
        super().__init__(settings, unguided(teacher), start)

    def make_student(self, start: Denoiser) -> Denoiser:
        return start.with_target()

    def told(self, scale: Tensor) -> Tensor:
        """The scales [B] as the student is told them."""
        low, high = self.settings.low_guidance, self.settings.high_guidance
        return (scale - low) / (high - low) if high > low else torch.zeros_like(scale)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        t = uniform(rng.uniform(), 1 / self.path.timesteps, self.path.t_max)
        return t, torch.zeros_like(t)

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        at = super().draw(batch, segment, rng)
        return replace(at, scale=uniform(rng.uniform(), self.settings.low_guidance, self.settings.high_guidance))

    def target(self, at: Draw) -> Tensor:
        if self.teacher.null_label is None:  # and every scale is 1
            return self.teacher.predict(at.x, at.t, at.labels)
        assert at.labels is not None
        assert at.scale is not None
        return guided_prediction(self.teacher, at.x, at.t, at.labels, at.scale)

    def output(self, at: Draw) -> Tensor:
        assert at.scale is not None
        return self.student.predict(at.x, at.t, at.labels, s=self.told(at.scale))

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return v_weight(at.t, self.path).to(output) * squared(output, target)

    def students(self, segment: int, average: Denoiser) -> list[tuple[SamplerSpec, Denoiser]]:
        spec = self.sampler(segment)
        told = self.told(torch.tensor(self.settings.guidance_scale, dtype=torch.float64)).item()
        return [(spec, average.baked([(t, told) for t, _ in spec.times(spec.steps[0])]))]
