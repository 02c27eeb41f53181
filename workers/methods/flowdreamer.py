"""Unique couple matching, from FlowDreamer, Li et al., arXiv:2408.05008."""

from itertools import pairwise

import torch
from torch import Tensor

from service.methods.flowdreamer import FlowDreamerSettings
from workers.diffusion.losses import flow_weight
from workers.diffusion.paths import RectifiedFlow, expand
from workers.diffusion.timesteps import from_straight, uniform
from workers.randomness import BatchRng
from workers.templates.scores import T_MAX, T_MIN, Compared, Generator, Samples


class FlowDreamer(Generator[FlowDreamerSettings]):
    """v_phi(x_tau, tau) - (eps* - x) moves the sample x, on x_tau = (1 - tau) x + tau eps*.

    eps* is the noise that the teacher's flow leads back to from x ("push-backward"): with a random one, in its place,
    this is score distillation on the path of rectified flow. Deviations: a student makes all samples and there is no
    scene; the weight w is one; the teacher need not be a rectified flow, its velocity is taken at equal SNR.

    The couple follows the sample, so nothing ties a sample to the noise that the student made it of.
    """

    straight = RectifiedFlow()

    def levels(self, rng: BatchRng, exit: Tensor) -> Tensor:
        tau = uniform(rng.uniform(len(exit)), T_MIN, T_MAX)
        return torch.maximum(from_straight(tau, self.path), self.lowest(exit))

    @torch.no_grad()
    def noise(self, samples: Samples, t: Tensor, rng: BatchRng) -> Tensor:
        """eps*, by Euler steps from tau = 0 to 1. At 0 the velocity is -x, which no network need be asked for."""
        times = torch.linspace(T_MIN, 1, self.settings.inversion_steps + 1, dtype=t.dtype)
        x = (1 - T_MIN) * samples.x
        for now, later in pairwise(times):
            tau = now.expand(len(t))
            x = x + float(later - now) * self.teacher.predict(x, tau, samples.labels, "flow", self.straight)
        return x

    def other(self, samples: Samples, x_t: Tensor, t: Tensor) -> Tensor:
        """The x0 that belongs to eps*: the sample itself."""
        return samples.x

    def gradient(self, at: Compared) -> Tensor:
        """The velocities are (x_tau - x0)/tau."""
        return expand(flow_weight(at.t, self.path).sqrt(), at.real) * (at.fake - at.real)
