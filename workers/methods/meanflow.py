"""MeanFlow, Geng et al., arXiv:2505.13447."""

import torch
from torch import Tensor

from service.methods.meanflow import MeanFlowSettings
from workers.diffusion.losses import squared
from workers.diffusion.paths import RectifiedFlow, expand
from workers.randomness import BatchRng
from workers.templates.flow_map import KnowsTarget
from workers.templates.regression import Draw
from workers.templates.tangent import TangentMatch

C = 1e-3
"""c of the adaptive weight."""


class MeanFlow(TangentMatch[MeanFlowSettings], KnowsTarget[MeanFlowSettings]):
    """u(z, r, t) is the average velocity from t down to r: z_r = z_t - (t - r) u on straight paths.

    Differentiated in t, this says u = v - (t - r)(v d_z u + d_t u), the MeanFlow identity; u regresses to the
    right-hand side, its own derivative held fixed (algorithm 1), with an adaptive weight 1/(error + c)^p (section
    4.3).

    Deviations: by default v is the teacher's velocity, which makes it a distillation; `velocity = "data"` is the
    paper's. A guided teacher takes the place of the guided v of section 4.2. The student is told r, not t - r. The
    error is a mean of squares, and p is 1/2: the paper's 1 forgets large errors, and is slower here. By default the
    derivative is a difference; see `TangentMatch.slope`.
    """

    flow_path = RectifiedFlow()

    def times(self, rng: BatchRng) -> tuple[Tensor, Tensor]:
        """Two draws in order; in a part of the batch both are the same."""
        one, other = self.noise_level(rng), self.noise_level(rng)
        t = torch.maximum(one, other)
        return t, torch.where(rng.uniform() < self.settings.equal_share, t, torch.minimum(one, other))

    def tangent(self, at: Draw, u: Tensor) -> Tensor:
        v = self.velocity(at)
        u_target = v - expand(at.t - at.s, u) * self.slope(at, u, v)
        return u_target - u

    def distance(self, u: Tensor, target: Tensor, at: Draw) -> Tensor:
        error = squared(u, target)
        return error / (error.detach() + C) ** self.settings.power
