"""SlimFlow, Zhu et al., arXiv:2407.12718."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from service.methods.slimflow import SlimFlowSettings
from workers.data.source import Batch
from workers.diffusion.ema import copy_weights
from workers.diffusion.paths import expand
from workers.diffusion.solver import jump
from workers.diffusion.timesteps import from_straight, uniform
from workers.models.counter import Counter
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw
from workers.templates.straight import Straight

MIDDLE = (0.2, 0.8)


class SlimFlow(Straight[SlimFlowSettings]):
    """Two segments. Annealing reflow: reflow whose noises are sqrt(1 - beta^2) eps + beta xi, with fresh xi; as
    beta falls from 1 to 0, ordinary training on the teacher's images becomes reflow. Flow-guided distillation:
    one step from a noise learns its image, or, for fresh noises, two steps of the flow before.

    A fresh noise needs no pair, so there is no end to them. Deviations: each sample serves one of the two losses, and
    not both; the distance is the squared one and not LPIPS.
    """

    def __init__(self, settings: SlimFlowSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.flow, self.counter = self.student.frozen_copy(), Counter()
        self.followers = {"flow": self.flow, "counter": self.counter}

    def segments(self) -> list[int]:
        return [self.settings.iterations, self.settings.distil_iterations]

    @property
    def beta(self) -> float:
        """(1 + cos(pi k/K))/2 at step k of K, then 0."""
        annealed = self.settings.annealing * self.settings.iterations
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, int(self.counter.steps) / annealed)) if annealed else 0.0

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        assert batch is not None
        assert batch.noise is not None
        fresh = rng.normal_like(batch.noise)
        if segment == 0:
            noise = math.sqrt(1 - self.beta**2) * batch.noise + self.beta * fresh
            return super().draw(replace(batch, noise=noise), segment, rng)
        guided = rng.uniform() < self.settings.flow_guided
        noise = torch.where(expand(guided, fresh) > 0, fresh, batch.noise)
        at = self.from_noise(super().draw(replace(batch, noise=noise), segment, rng))
        middle = from_straight(uniform(rng.uniform(), *MIDDLE), self.path)
        return replace(at, s=middle * guided)

    def target(self, at: Draw) -> Tensor:
        """The pair's image; where there is a middle s, that of two steps of the flow."""
        guided, target = at.s > 0, at.images.clone()
        here = guided.to(at.x.device)
        x, t, s, labels = at.x[here], at.t[guided], at.s[guided], None if at.labels is None else at.labels[here]
        x_s = jump(
            x, self.flow.predict(x, t, labels), t, s, self.path
        )  # also of no rows: all workers ask equally often
        target[here] = self.flow.predict(x_s, s, labels)
        return target

    def after_step(self) -> None:
        self.counter.count()

    def next_segment(self) -> None:
        copy_weights(self.flow, self.student)
