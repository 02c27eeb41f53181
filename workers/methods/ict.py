"""Improved consistency training, Song & Dhariwal, arXiv:2310.14189."""

import math

import torch
from torch import Tensor

from service.methods.ict import ICTSettings
from workers.diffusion.losses import pseudo_huber
from workers.diffusion.timesteps import SIGMA_MAX, karras_grid, noise_level, time_of_noise_level
from workers.randomness import BatchRng
from workers.templates.consistency import SharedNoise
from workers.templates.regression import Draw

HUBER_C = 0.00054
SIGMA_MIN = 0.002


class ICT(SharedNoise[ICTSettings]):
    """Consistency training whose target is the student itself (section 3.2), with the changes of table 1.

    - The grid's N(k) intervals double every K' steps, from s_0 up to s_1 (eq. 12).
    - A cell is drawn as often as a lognormal noise level falls into it (eq. 10).
    - The distance is pseudo-Huber (eq. 8) with the weight 1/(sigma_{i+1} - sigma_i) (section 3.1).

    Noise levels are those of the EDM path at equal SNR. Deviations: the student starts from the teacher's weights, and
    has no dropout; f(x, 0) = x in place of f(x, sigma_min) = x.
    """

    def intervals(self) -> int:
        """N(k)."""
        s_0, s_1 = self.settings.first_steps, self.settings.last_steps
        doublings = math.floor(math.log2(s_1 / s_0)) + 1
        stage = math.floor(self.progress() * doublings)
        return min(s_0 * 2**stage, s_1)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        sigmas = karras_grid(self.intervals() + 1, SIGMA_MAX, SIGMA_MIN)[:-1]
        sigmas[-1] = 0
        below = torch.erf((sigmas.log() - self.settings.log_sigma_mean) / (math.sqrt(2) * self.settings.log_sigma_std))
        shares = below[:-1] - below[1:]
        ends = shares.cumsum(0)
        i = torch.searchsorted(ends, rng.uniform() * ends[-1]).clamp(max=len(ends) - 1)
        times = time_of_noise_level(sigmas, self.path)
        return times[i], times[i + 1]

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        weight = 1 / (noise_level(at.t, self.path) - noise_level(at.s, self.path))
        return weight.to(output) * pseudo_huber(output, target, HUBER_C)
