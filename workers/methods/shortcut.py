"""Shortcut models, Frans et al., arXiv:2410.12557, in their distillation variant."""

import torch
from torch import Tensor

from service.methods.shortcut import ShortcutSettings
from workers.diffusion.ema import ema_update
from workers.diffusion.losses import squared, v_weight
from workers.diffusion.solver import invert_target
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.flow_map import FlowMap
from workers.templates.regression import Draw


class Shortcut(FlowMap[ShortcutSettings]):
    """Algorithm 1: a step of length 2d lands where two steps of length d of the averaged student do; a step of the
    smallest length is the teacher's. Times lie on the grid of their step's length.

    Deviations: steps are DDIM's, which on the paper's straight path are its Euler steps, of equal parts of t instead of
    sigma; the error is one of x0 with the v weight, which is theirs in velocity up to a factor of two; the smallest
    step is told its true length instead of 0; more of the batch learns from half steps, since the student starts as its
    teacher.
    """

    def __init__(self, settings: ShortcutSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.average = self.student.frozen_copy()
        self.followers = {"target": self.average}

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        """Steps of 2^-level of the way, level by level alike; the last level is the teacher's."""
        share, last = self.settings.bootstrap_share, self.settings.doublings
        level = (rng.uniform() / share * last).floor().clamp(max=last)
        steps = 2**level
        cell = (rng.uniform() * steps).floor()
        return (cell + 1) / steps, cell / steps

    def target(self, at: Draw) -> Tensor:
        """The x0 of the step to s."""
        smallest = at.t - at.s < 1.5 * 0.5**self.settings.doublings
        target = torch.empty_like(at.x)
        for rows, rule in ((smallest, self.teacher_step), (~smallest, self.half_steps)):
            target[rows] = rule(at.part(rows))  # also of no rows: all workers ask the networks equally often
        return target

    def teacher_step(self, at: Draw) -> Tensor:
        return self.teacher.predict(at.x, at.t, at.labels)

    def half_steps(self, at: Draw) -> Tensor:
        """In float64, for it divides by a small number."""
        middle = (at.t + at.s) / 2
        x_middle = self.map(self.average, at.x, at.t, middle, at.labels)
        x_s = self.map(self.average, x_middle, middle, at.s, at.labels)
        return invert_target(at.x.double(), x_s.double(), at.t, at.s, self.path).to(at.x)

    def output(self, at: Draw) -> Tensor:
        return self.student.predict(at.x, at.t, at.labels, s=at.s)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return v_weight(at.t, self.path).to(output) * squared(output, target)

    def after_step(self) -> None:
        ema_update(self.average, self.student, self.settings.target_decay)
