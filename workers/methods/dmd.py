"""Distribution matching distillation, Yin et al., arXiv:2311.18828."""

import torch
from torch import Tensor

from service.methods.dmd import DMDSettings
from workers.data.source import Batch
from workers.diffusion.losses import distribution_gradient, squared
from workers.methods.base import LossOut
from workers.randomness import BatchRng
from workers.templates.scores import Compared, Samples, ScoreMatching


class DMD(ScoreMatching[DMDSettings]):
    """The student descends KL(student, teacher) at every noise level, normalised as in equation 8, and keeps to what
    the teacher's own solver makes of some noises (section 3.3).

    Deviations: the distance to a pair's image is a mean square, not LPIPS, and the fake score is updated more than
    once per step.
    """

    def gradient(self, at: Compared) -> Tensor:
        return distribution_gradient(at.samples.x, at.real, at.fake)

    def student_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        assert batch is not None
        assert batch.noise is not None
        out = super().student_loss(samples, batch, rng)
        start = torch.full((len(batch.noise),), self.exits[0][0], dtype=torch.float64)
        regression = squared(self.f(batch.noise, start, batch.labels), batch.images).mean()
        loss = out.loss + self.settings.regression_weight * regression
        return LossOut(loss, {**out.logs, "regression_loss": regression.detach()})
