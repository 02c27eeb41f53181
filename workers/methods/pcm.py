"""Phased consistency models, Wang et al., arXiv:2405.18407."""

import torch
from torch import Tensor

from service.methods import PCMSettings
from workers.diffusion.solver import jump
from workers.diffusion.timesteps import even_grid, grid_cell
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.consistency import SelfConsistency
from workers.templates.regression import Draw


class PCM(SelfConsistency[PCMSettings]):
    """Section 3: within the phase of t, f(x_t, t) = f-(x_s, s), where f is a DDIM step to the phase's lower edge.

    At the edge itself f is the identity (section 3.1). One step per phase samples, and needs no fresh noise.
    Deviations: no adversarial term; a pseudo-Huber distance, weighted as the template says.
    """

    sampler_kind = "ddim"

    def __init__(self, settings: PCMSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.grid = even_grid(settings.phases * settings.phase_steps, self.path.t_max)
        self.edges = self.grid[:: settings.phase_steps].flip(0)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        return grid_cell(rng.uniform(), self.grid)

    def f(self, network: Denoiser, x: Tensor, t: Tensor, at: Draw) -> Tensor:
        edge = self.edges[torch.searchsorted(self.edges, at.t) - 1]
        return jump(x, network.predict(x, t, at.labels), t, edge, self.path)
