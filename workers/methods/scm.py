"""Simplified continuous-time consistency models, Lu & Song, arXiv:2410.11081."""

import torch
from torch import Tensor, nn

from service.methods.scm import SCMSettings
from workers.diffusion.losses import squared
from workers.diffusion.paths import TrigFlow, expand
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw
from workers.templates.tangent import TangentMatch, normalised

SIGMA_DATA = 1.0
NORM_C = 0.1
WEIGHT_RATE = 1e-3


class SCM(TangentMatch[SCMSettings]):
    """f(x, t) = cos(t) x - sin(t) F(x, t) must not change along the flow: df/dt = 0. It is just the x0 that the student
    predicts, so f(x, 0) = x.

    F follows cos(t) df/dt = -cos^2(t)(F - dx/dt) - r cos(t) sin(t)(x + dF/dt), normalised (algorithm 1); r grows from 0
    to 1 while training starts. dx/dt is the teacher's (sCD), or with `velocity = "data"` that of one image and its
    noise (sCT).

    Deviations: sigma_d = 1, for images in [-1, 1]; F is their sigma_d F. By default dF/dt is a difference, since the
    network stays the teacher's, without the paper's new time embedding and norms; see `TangentMatch.slope`. The norm is
    a root mean square. The weight exp(w(t)) is optional, and w is learned in turns of its own. LCMScheduler's boundary
    differs from f by less than 1e-4 above timestep 5.
    """

    sampler_kind = "renoise"
    flow_path = TrigFlow(SIGMA_DATA)

    def __init__(self, settings: SCMSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.weight = LogWeight()
        if settings.learned_weight:
            self.trainable["weight"] = self.weight.to(next(self.student.parameters()).device)

    def turns(self, step: int) -> list[str]:
        return list(self.trainable)

    def learning_rate(self, role: str) -> float:
        return WEIGHT_RATE if role == "weight" else self.settings.learning_rate

    def times(self, rng: BatchRng) -> tuple[Tensor, Tensor]:
        t = self.noise_level(rng)
        return t, torch.zeros_like(t)

    def tangent(self, at: Draw, F: Tensor) -> Tensor:
        dx = self.velocity(at)
        r = self.ramp(self.settings.tangent_warmup)
        cos, sin = expand(torch.cos(at.t), F), expand(torch.sin(at.t), F)
        return normalised(-(cos**2) * (F - dx) - r * cos * sin * (at.x + self.slope(at, F, dx)), NORM_C)

    def distance(self, F: Tensor, target: Tensor, at: Draw) -> Tensor:
        error = squared(F, target)
        if not self.settings.learned_weight:
            return error
        w = self.weight(at.t)
        return w.exp() * error - w


class LogWeight(nn.Module):
    """w(t) [B], 0 at first; at its best exp(-w) is the mean error at t."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.arange(1.0, 9.0))
        self.last = nn.Linear(16, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, t: Tensor) -> Tensor:
        phase = t.to(self.frequencies)[:, None] * self.frequencies
        return self.last(torch.cat([phase.cos(), phase.sin()], dim=1))[:, 0]
