"""Consistency training, Song et al., arXiv:2303.01469."""

import math

from torch import Tensor

from service.methods.ct import CTSettings
from workers.diffusion.timesteps import even_grid, grid_cell
from workers.randomness import BatchRng
from workers.templates.consistency import AveragedTarget, SharedNoise


class CT(AveragedTarget[CTSettings], SharedNoise[CTSettings]):
    """Algorithm 3: f(x_t, t) = f-(x_s, s), where x_t and x_s are one image under one noise.

    The grid grows as in appendix C: with N(k) intervals in step k of K, (N(k) + 1)^2 goes evenly from (s_0 + 1)^2 to
    (s_1 + 1)^2, and the target's decay is mu(k) = exp(s_0 log mu_0/N(k)). Deviations: the student starts from the
    teacher's weights; s_0, s_1 and N count intervals, not points; an even grid in t; a pseudo-Huber distance, weighted
    as the template says.
    """

    def intervals(self) -> int:
        """N(k)."""
        s_0, s_1 = self.settings.first_steps, self.settings.last_steps
        square = (s_0 + 1) ** 2 + self.progress() * ((s_1 + 1) ** 2 - (s_0 + 1) ** 2)
        return math.ceil(math.sqrt(square) - 1)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        return grid_cell(rng.uniform(), even_grid(self.intervals(), self.path.t_max))

    def decay(self) -> float:
        return self.settings.target_decay ** (self.settings.first_steps / self.intervals())
