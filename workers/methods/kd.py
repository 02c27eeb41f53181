"""Knowledge distillation in iterative generative models, Luhman & Luhman, arXiv:2101.02388."""

import torch
from torch import Tensor

from service.methods.kd import KDSettings
from workers.data.source import Batch
from workers.diffusion.losses import pseudo_huber
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression


class KD(Regression[KDSettings]):
    """Section 3: G(x_T), one step from pure noise, regresses to where the teacher's ODE takes x_T.

    The pairs are made once, beforehand. Deviations: the distance is a pseudo-Huber one, between the two that they use,
    L2 and L1; the teacher's solver is of second order, not DDIM.
    """

    sampler_kind = "ddim"

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        t = torch.full((rng.size,), self.path.t_max, dtype=torch.float64)
        return t, torch.zeros_like(t)

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        """At the noise itself, as in sampling: noised up to t = 1 an image can leave traces, which give it away."""
        assert batch is not None
        assert batch.noise is not None
        t, s = self.times(rng, segment)
        return Draw(batch.noise, t, s, batch.labels, batch.images, batch.noise, segment)

    def target(self, at: Draw) -> Tensor:
        return at.images

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return pseudo_huber(output, target, self.settings.huber_c)
