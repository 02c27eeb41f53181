"""Consistency distillation, Song et al., arXiv:2303.01469, with the boundary of latent consistency models."""

import torch

from service.methods import ConsistencySettings
from workers.data.source import Batch
from workers.diffusion.ema import ema_update
from workers.diffusion.losses import pseudo_huber
from workers.diffusion.paths import expand
from workers.diffusion.sampler import consistency_function
from workers.diffusion.solver import jump
from workers.diffusion.timesteps import even_grid, grid_cell
from workers.methods.base import LossOut, Method
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng

HUBER_C = 0.03


class Consistency(Method[ConsistencySettings]):
    """Algorithm 2: f(x_t, t) = f-(x_s, s), where x_s is one DDIM step of the teacher below x_t.

    f- is an average of the student and carries no gradient. The residual is divided by sigma(t): a plain x0 loss grows
    with the noise level, and many-step samples then get worse as training goes on.
    """

    sampler_kind = "renoise"

    def __init__(self, settings: ConsistencySettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.grid = even_grid(settings.grid_steps)
        self.target = self.student.frozen_copy()
        self.followers = {"target": self.target}

    def f(self, network: Denoiser, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """The consistency function, f(x, 0) = x."""
        return consistency_function(x, network.predict(x, t, labels), t, self.path.timesteps)

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        assert batch is not None
        t, s = grid_cell(rng.uniform(), self.grid)
        x_t = self.path.add_noise(batch.images, rng.normal(batch.images.shape[1:]), t)
        with torch.no_grad():
            x_s = jump(x_t, self.teacher.predict(x_t, t, batch.labels), t, s, self.path)
            end = self.f(self.target, x_s, s, batch.labels)
        scale = expand(1 / self.path.sigma(t), x_t)
        distance = pseudo_huber(scale * self.f(self.student, x_t, t, batch.labels), scale * end, HUBER_C)
        return LossOut(distance.mean())

    def after_step(self) -> None:
        ema_update(self.target, self.student, self.settings.target_decay)
