"""BOOT, data-free distillation by bootstrapping, Gu et al., arXiv:2306.05544."""

import torch
from torch import Tensor

from service.methods.boot import BootSettings
from workers.data.source import Batch
from workers.diffusion.losses import squared
from workers.diffusion.paths import expand
from workers.diffusion.solver import jump
from workers.diffusion.timesteps import even_grid, grid_cell
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.flow_map import FlowMap
from workers.templates.regression import Draw


class Boot(FlowMap[BootSettings]):
    """Section 3: y(eps, t) is the signal that the teacher has brought out of the noise eps on its way from 1 to t.

    It is the x0 of a student that is always asked at the noise, x = eps, and told t: one DDIM step with it lands on
    the teacher's x_t. The signal ODE takes y from t to s by one evaluation f of the teacher, and y(eps, s) regresses to
    y + c (f - y), where y = y(eps, t) and carries no gradient. No images are needed. A share of each batch learns the
    boundary: at t = 1 y is the teacher's own x0.

    Deviations: c = 1 - exp(lambda_s - lambda_t), lambda = log(sigma/alpha), is the whole DDIM step, of which theirs is
    the first order; so no t is out of bounds, also where alpha is 0, and it loses nothing with long steps.
    """

    def __init__(self, settings: BootSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.grid = even_grid(settings.grid_steps, self.path.t_max)

    def y(self, eps: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return self.student.predict(eps, torch.full_like(t, self.path.t_max), labels, s=t)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        """Neighbours on the grid; t = s = 1 for the boundary."""
        u = rng.uniform()
        share = self.settings.boundary_share
        t, s = grid_cell(((u - share) / (1 - share)).clamp(min=0), self.grid)
        boundary = u < share
        return t.masked_fill(boundary, self.path.t_max), s.masked_fill(boundary, self.path.t_max)

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        eps = rng.normal(self.teacher.shape)
        t, s = self.times(rng, segment)
        labels = None
        if self.teacher.num_classes is not None:
            labels = (rng.uniform() * self.teacher.num_classes).long().to(rng.device)
        return Draw(eps, t, s, labels, images=eps, noise=eps, segment=segment)

    def coefficient(self, t: Tensor, s: Tensor) -> Tensor:
        """c [B]; 1 from t = 1, where alpha is taken to be 0: all that x has there is eps."""
        alpha_1, sigma_1 = (f(torch.full_like(t, self.path.t_max)) for f in (self.path.alpha, self.path.sigma))
        alpha_t, alpha_s = (self.path.alpha(u) - self.path.sigma(u) / sigma_1 * alpha_1 for u in (t, s))
        odds = alpha_t * self.path.sigma(s) / (alpha_s * self.path.sigma(t))
        return torch.where(t < self.path.t_max, 1 - odds, 1.0)

    def target(self, at: Draw) -> Tensor:
        y = self.y(at.x, at.t, at.labels)
        x_t = jump(at.x, y, torch.full_like(at.t, self.path.t_max), at.t, self.path)
        f = self.teacher.predict(x_t, at.t, at.labels)
        return y + expand(self.coefficient(at.t, at.s), y) * (f - y)

    def output(self, at: Draw) -> Tensor:
        return self.y(at.x, at.s, at.labels)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return squared(output, target)
