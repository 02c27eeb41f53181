"""Progressive distillation, Salimans & Ho, arXiv:2202.00512."""

import torch

from service.methods import ProgressiveSettings
from workers.data.source import Batch
from workers.diffusion.ema import copy_weights
from workers.diffusion.losses import squared, v_weight
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import invert_target, jump
from workers.methods.base import LossOut, Method
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng


class Progressive(Method[ProgressiveSettings]):
    """Algorithm 2: one DDIM step of the student lands where two of its teacher land.

    Every rung of the ladder halves the steps, and its finished student teaches the next rung. The x0 loss has the v
    weight SNR + 1 (section 4), which is finite at t = 1, where the signal is gone.
    """

    sampler_kind = "ddim"
    teacher_is_start = True

    def __init__(self, settings: ProgressiveSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.previous = self.student.frozen_copy()
        self.followers = {"previous": self.previous}

    def segments(self) -> list[int]:
        return self.settings.rung_lengths()

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        assert batch is not None
        steps = self.settings.rungs()[segment]
        cells = torch.tensor(SamplerSpec("ddim", (steps,), self.path.timesteps).times(steps), dtype=torch.float64)
        t, s = cells[(rng.uniform() * steps).long()].unbind(1)
        x_t = self.path.add_noise(batch.images, rng.normal(batch.images.shape[1:]), t)

        target = self.target(self.teacher if segment == 0 else self.previous, x_t, t, s, batch)
        x0 = self.student.predict(x_t, t, batch.labels)
        weight = v_weight(t, self.path).to(x0)
        return LossOut((weight * squared(x0, target)).mean())

    @torch.no_grad()
    def target(
        self, teacher: Denoiser, x_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """The x0 that takes the student from x_t to s in one step; in float64, for it divides by a small number."""
        middle = (t + s) / 2
        x_middle = jump(x_t.double(), teacher.predict(x_t, t, batch.labels), t, middle, self.path)
        x0_middle = teacher.predict(x_middle.to(x_t), middle, batch.labels)
        x_s = jump(x_middle, x0_middle, middle, s, self.path)
        return invert_target(x_t.double(), x_s, t, s, self.path).to(x_t)

    def next_segment(self) -> None:
        copy_weights(self.previous, self.student)
