"""Template: a straight line joins the noise and the image of each pair, and the student learns the way along it."""

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from service.methods.templates import StraightSettings
from workers.diffusion.losses import flow_weight, squared
from workers.diffusion.timesteps import from_straight, u_shaped
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression

S = TypeVar("S", bound=StraightSettings)


class Straight(Regression[S]):
    """E |u(x_tau, tau) - (eps - x0)|^2 on x_tau = (1 - tau) x0 + tau eps (arXiv:2209.03003, eq. 1, time reversed).

    No network changes its path: x_tau, scaled, is the point of equal SNR on the teacher's, where an Euler step along
    the line is a DDIM step, which is how the student is run.
    """

    sampler_kind = "ddim"

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        u = rng.uniform()
        tau = u_shaped(u) if self.settings.times == "u_shaped" else u
        return from_straight(tau, self.path), torch.zeros_like(u)

    def target(self, at: Draw) -> Tensor:
        return at.images

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        """Of the velocities: u = (x_tau - x0)/tau, so they differ by 1/tau times what the x0 do."""
        return flow_weight(at.t, self.path).to(output) * squared(output, target)

    def from_noise(self, at: Draw) -> Draw:
        """The same pairs, asked where a sampler of one step asks."""
        return replace(at, x=at.noise, t=torch.full_like(at.t, self.path.t_max))
