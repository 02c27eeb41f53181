"""Align Your Flow, Sabour et al., arXiv:2506.14603."""

import torch
from torch import Tensor

from service.methods.ayf import AYFSettings
from workers.diffusion.paths import RectifiedFlow, expand
from workers.randomness import BatchRng
from workers.templates.flow_map import KnowsTarget
from workers.templates.regression import Draw
from workers.templates.tangent import TangentMatch, normalised

NORM_C = 0.1


class AYF(TangentMatch[AYFSettings], KnowsTarget[AYFSettings]):
    """The flow map on straight paths is X(x, t, s) = x + (s - t) F(x, t, s), and v the teacher's velocity.

    - Eulerian (AYF-EMD): X does not change as its start moves along the flow, dX/dt = (v - F) + r (s - t) dF/dt = 0.
    - Lagrangian (AYF-LMD): its end moves along the flow, dX/ds = F + r (s - t) dF/ds = v(X, s).

    F follows what is left over, normalised; r grows from 0 to 1 while training starts.

    Deviations: r ends at 1, not .99. Lagrangian targets are held fixed as well. By default a derivative is a
    difference; see `TangentMatch.slope`. The norm is a root mean square. The teacher is guided by its null class, not
    by a weaker teacher. The adversarial finish is left out. log(sigma/alpha) at t is normal, s is uniform below t.
    """

    flow_path = RectifiedFlow()

    def times(self, rng: BatchRng) -> tuple[Tensor, Tensor]:
        t = self.noise_level(rng)
        return t, rng.uniform() * t

    def tangent(self, at: Draw, F: Tensor) -> Tensor:
        r, forward = self.ramp(self.settings.tangent_warmup), expand(at.s - at.t, F)
        if self.settings.objective == "eulerian":
            v = self.velocity(at)
            return normalised((v - F) + r * forward * self.slope(at, F, v), NORM_C)
        v = self.F(self.teacher, at.x + forward * F, at.s, at.s, at.labels)
        return normalised((v - F) - r * forward * self.slope(at, F, torch.zeros_like(F), "s"), NORM_C)
