"""Easy consistency tuning, Geng et al., arXiv:2406.14548."""

import math

import torch
from torch import Tensor

from service.methods.ect import ECTSettings
from workers.diffusion.losses import pseudo_huber
from workers.diffusion.timesteps import SIGMA_MAX, noise_level, time_of_noise_level
from workers.randomness import BatchRng
from workers.templates.consistency import SharedNoise
from workers.templates.regression import Draw

K, B = 8.0, 1.0
HUBER_C = 1e-4


class ECT(SharedNoise[ECTSettings]):
    """A pretrained model becomes a consistency model as s, at first far below t, closes in on it (section 3.3).

    In noise levels of the EDM path at equal SNR, which are lognormal: s = t - t n(t)/q^a, at least 0, in the a-th part
    of training, with n(t) = 1 + k sigmoid(-b t). At s = 0 this is the training of a diffusion model. The target is the
    student itself, and the weight 1/(t - s). Deviation: no dropout.
    """

    def part(self) -> int:
        """a = 1, 2, ..."""
        return 1 + math.floor(self.progress() * self.settings.parts)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        normal = torch.special.ndtri(rng.uniform().clamp(min=1e-9))
        t = torch.exp(self.settings.log_sigma_mean + self.settings.log_sigma_std * normal).clamp(max=SIGMA_MAX)
        n = 1 + K * torch.sigmoid(-B * t)
        s = (t - t * n / self.settings.quotient ** self.part()).clamp(min=0)
        return time_of_noise_level(t, self.path), time_of_noise_level(s, self.path)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        weight = 1 / (noise_level(at.t, self.path) - noise_level(at.s, self.path))
        return weight.to(output) * pseudo_huber(output, target, HUBER_C)
