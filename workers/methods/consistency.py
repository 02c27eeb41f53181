"""Consistency distillation, Song et al., arXiv:2303.01469, with the boundary of latent consistency models."""

from torch import Tensor

from service.methods.consistency import ConsistencySettings
from workers.diffusion.timesteps import even_grid, grid_cell
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.consistency import AveragedTarget


class Consistency(AveragedTarget[ConsistencySettings]):
    """Algorithm 2: f(x_t, t) = f-(x_s, s), where x_s is one DDIM step of the teacher below x_t.

    Deviations: an even grid in t; DDIM in place of Heun's method; a pseudo-Huber distance, weighted as the template
    says.
    """

    def __init__(self, settings: ConsistencySettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.grid = even_grid(settings.grid_steps, self.path.t_max)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        return grid_cell(rng.uniform(), self.grid)
