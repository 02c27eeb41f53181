"""Distillation of guidance, Meng et al., arXiv:2210.03142: its first stage."""

import torch
from torch import Tensor

from service.methods.guidance import GuidanceSettings
from workers.diffusion.losses import squared, v_weight
from workers.diffusion.timesteps import uniform
from workers.randomness import BatchRng
from workers.templates.regression import Draw
from workers.templates.told_guidance import ToldGuidance


class Guidance(ToldGuidance[GuidanceSettings]):
    """Section 3.1: one evaluation of the student gives the teacher's guided x0, u + g (c - u), for any g in a range.

    g is their w + 1. The exported student takes as many steps as the teacher, and half the evaluations. Their second
    stage is `progressive` as the next stage of a chain, for that one g. Their stochastic sampler (two steps ahead, one
    step of noise back) is not here: no stock scheduler takes such steps.
    """

    sampler_kind = "ddim"
    scales_named = "low_guidance to high_guidance"

    def scales(self) -> tuple[float, float]:
        return self.settings.low_guidance, self.settings.high_guidance

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        t = uniform(rng.uniform(), 1 / self.path.timesteps, self.path.t_max)
        return t, torch.zeros_like(t)

    def target(self, at: Draw) -> Tensor:
        return self.guided(at)

    def output(self, at: Draw) -> Tensor:
        return self.told_x0(self.student, at.x, at.t, at)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return v_weight(at.t, self.path).to(output) * squared(output, target)
