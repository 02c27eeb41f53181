"""Trajectory consistency distillation, Zheng et al., arXiv:2402.19159."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.methods.tcd import TCDSettings
from workers.data.source import Batch
from workers.diffusion.losses import squared
from workers.diffusion.solver import jump
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.consistency import AveragedTarget
from workers.templates.regression import Draw


@dataclass(frozen=True)
class Journey(Draw):
    """`end` [B]: the time that both points are to lead to, at or below s."""

    end: Tensor | None = None


class TCD(AveragedTarget[TCDSettings]):
    """Section 4.2: f(x_t, t -> t_m) = f-(x_s, s -> t_m), where f is a DDIM step and t_m any time of the grid up to s.

    As in the paper, the x0 inside f does not depend on t_m: no x0 solves this for all t_m, and what is learnt is a mean
    of the x0 that each asks for. Sampling goes below the next time and back up by noise (section 4.3, gamma).
    Deviations: no skipped steps; the squared error is divided by sigma(t)^2, as the template says.
    """

    sampler_kind = "gamma"

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        n = self.settings.grid_steps
        i = torch.floor(rng.uniform() * n) + 1
        return i / n * self.path.t_max, (i - 1) / n * self.path.t_max

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Journey:
        at = super().draw(batch, segment, rng)
        cell = self.path.t_max / self.settings.grid_steps
        m = torch.floor(rng.uniform() * (torch.round(at.s / cell) + 1))
        return Journey(**vars(at), end=m * cell)

    def f(self, network: Denoiser, x: Tensor, t: Tensor, at: Draw) -> Tensor:
        assert isinstance(at, Journey)
        assert at.end is not None
        return jump(x, network.predict(x, t, at.labels), t, at.end, self.path)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return (1 / self.path.sigma(at.t) ** 2).to(output) * squared(output, target)
