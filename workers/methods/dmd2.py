"""Improved distribution matching distillation, Yin et al., arXiv:2405.14867."""

import torch
from torch import Tensor, nn

from service.methods import DMD2Settings
from service.methods.base import DataNeed
from workers.data.source import Batch
from workers.diffusion.losses import distribution_gradient
from workers.methods.base import LossOut
from workers.models.critic import Critic
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.adversarial import Adversarial, Look
from workers.templates.scores import Compared, Samples, ScoreMatching

CRITIC_WEIGHT = 0.01


class DMD2(ScoreMatching[DMD2Settings]):
    """The student descends KL(student, teacher) at every noise level: its gradient is a difference of two scores.

    The fake score has a clock of its own (section 4.2). With `gan_weight`, a critic on the fake score's features tells
    the samples from images (4.3), at the noise levels that the scores are compared at. Deviations with several steps:
    see the template; and an exit is compared from the noise level it is renoised to upwards (arXiv:2503.06674), since
    later steps are there for the finer levels.
    """

    def __init__(self, settings: DMD2Settings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        if settings.gan_weight > 0:
            self.gan = Adversarial(settings, Critic(self.fake))
            self.trainable["fake"] = nn.ModuleList([self.fake, self.gan.critic])

    @property
    def data_need(self) -> DataNeed:
        return "images" if self.settings.gan_weight > 0 else "none"

    def gradient(self, at: Compared) -> Tensor:
        return distribution_gradient(at.samples.x, at.real, at.fake)

    def student_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        at = self.compare(samples, rng)
        out = self.descend(at)
        if self.settings.gan_weight == 0:
            return out
        gan = self.gan.generator_loss(Look(at.x_t, at.t, self.conditions(samples.labels, samples.exit))).mean()
        return LossOut(out.loss + self.settings.gan_weight * gan, {**out.logs, "gan_loss": gan.detach()})

    def fake_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        out = super().fake_loss(samples, batch, rng)
        if self.settings.gan_weight == 0:
            return out
        assert batch is not None
        exit = torch.arange(rng.size, device=rng.device) % len(self.exits)
        t = self.levels(rng, exit)
        real_t = self.path.add_noise(batch.images, rng.normal(self.teacher.shape), t)
        fake_t = self.path.add_noise(samples.x[: rng.size], rng.normal(self.teacher.shape), t)
        labels = None if samples.labels is None else samples.labels[: rng.size]
        real = Look(real_t, t, self.conditions(batch.labels, exit))
        fake = Look(fake_t, t, self.conditions(labels, samples.exit[: rng.size]))
        critic = self.gan.critic_loss(real, fake, rng).mean()
        return LossOut(out.loss + CRITIC_WEIGHT * critic, {"critic_loss": critic.detach()})
