"""Consistency distillation, Song et al., arXiv:2303.01469, with the boundary of latent consistency models."""

from torch import Tensor

from service.methods import ConsistencySettings
from workers.diffusion.ema import ema_update
from workers.diffusion.losses import pseudo_huber
from workers.diffusion.paths import expand
from workers.diffusion.sampler import consistency_function
from workers.diffusion.solver import jump
from workers.diffusion.timesteps import even_grid, grid_cell
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression

HUBER_C = 0.03


class Consistency(Regression[ConsistencySettings]):
    """Algorithm 2: f(x_t, t) = f-(x_s, s), where x_s is one DDIM step of the teacher below x_t.

    f- is an average of the student and carries no gradient. The residual is divided by sigma(t): a plain x0 loss grows
    with the noise level, and many-step samples then get worse as training goes on.
    """

    sampler_kind = "renoise"

    def __init__(self, settings: ConsistencySettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.grid = even_grid(settings.grid_steps)
        self.average = self.student.frozen_copy()
        self.followers = {"target": self.average}

    def f(self, network: Denoiser, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The consistency function, f(x, 0) = x."""
        return consistency_function(x, network.predict(x, t, labels), t, self.path.timesteps)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        return grid_cell(rng.uniform(), self.grid)

    def target(self, at: Draw) -> Tensor:
        x_s = jump(at.x, self.teacher.predict(at.x, at.t, at.labels), at.t, at.s, self.path)
        return self.f(self.average, x_s, at.s, at.labels)

    def output(self, at: Draw) -> Tensor:
        return self.f(self.student, at.x, at.t, at.labels)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        scale = expand(1 / self.path.sigma(at.t), output)
        return pseudo_huber(scale * output, scale * target, HUBER_C)

    def after_step(self) -> None:
        ema_update(self.average, self.student, self.settings.target_decay)
