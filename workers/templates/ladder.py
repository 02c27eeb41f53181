"""Template: rungs of falling step counts; one step of a rung's student lands where two of the rung above's do."""

from typing import TypeVar

import torch
from torch import Tensor

from service.methods.templates import LadderSettings
from workers.diffusion.ema import copy_weights
from workers.diffusion.losses import squared, v_weight
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import Predict, invert_target, jump
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression

S = TypeVar("S", bound=LadderSettings)


class Ladder(Regression[S]):
    """Every rung halves the steps, and its finished student teaches the next rung.

    The x0 loss has the v weight SNR + 1 (arXiv:2202.00512, section 4), which is finite at t = 1, where the signal is
    gone.
    """

    sampler_kind = "ddim"
    teacher_is_start = True

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.previous = self.student.frozen_copy()
        self.followers = {"previous": self.previous}

    def above(self, segment: int) -> Denoiser:
        """Who teaches the rung."""
        return self.teacher if segment == 0 else self.previous

    def segments(self) -> list[int]:
        return self.settings.rung_lengths()

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        steps = self.settings.rungs()[segment]
        cells = torch.tensor(SamplerSpec.on(self.path, "ddim", [steps]).times(steps), dtype=torch.float64)
        t, s = cells[(rng.uniform() * steps).long()].unbind(1)
        return t, s

    def landing(self, predict: Predict, at: Draw) -> Tensor:
        """The x0 that takes the student from x_t to s in one DDIM step, where `predict` takes two.

        In float64, for it divides by a small number.
        """
        middle = (at.t + at.s) / 2
        x_middle = jump(at.x.double(), predict(at.x, at.t), at.t, middle, self.path)
        x_s = jump(x_middle, predict(x_middle.to(at.x), middle), middle, at.s, self.path)
        return invert_target(at.x.double(), x_s, at.t, at.s, self.path).to(at.x)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return v_weight(at.t, self.path).to(output) * squared(output, target)

    def next_segment(self) -> None:
        copy_weights(self.previous, self.student)
