"""Template: score matching with a critic on the fake score's features, which is trained in the fake score's turns."""

from typing import ClassVar, TypeVar

import torch
from torch import nn

from service.methods.templates import AdversarialScoreSettings
from workers.data.source import Batch
from workers.methods.base import LossOut
from workers.models.critic import Critic
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.adversarial import Adversarial, Look
from workers.templates.scores import Compared, Samples, ScoreMatching

S = TypeVar("S", bound=AdversarialScoreSettings)


class AdversarialScores(ScoreMatching[S]):
    """The critic tells samples from images at the noise levels that the scores are compared at (arXiv:2405.14867,
    section 4.3). Like the fake score, it has an opinion of its own of each exit."""

    critic_weight: ClassVar[float] = 0.01
    """Of the critic's loss, beside the fake score's."""

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        if self.has_critic:
            self.gan = Adversarial(settings, self.critic_network())
            self.trainable["fake"] = nn.ModuleList([self.fake, self.gan.critic])

    @property
    def has_critic(self) -> bool:
        return self.data_need == "images"

    def critic_network(self) -> nn.Module:
        """What gives the logits, on the features of the fake score."""
        return Critic(self.fake)

    def look(self, at: Compared) -> Look:
        """What the critic is shown of the samples."""
        return Look(at.x_t, at.t, self.conditions(at.samples.labels, at.samples.exit))

    def student_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        at = self.compare(samples, rng)
        out = self.descend(at)
        if self.settings.gan_weight == 0:
            return out
        gan = self.gan.generator_loss(self.look(at)).mean()
        return LossOut(out.loss + self.settings.gan_weight * gan, {**out.logs, "gan_loss": gan.detach()})

    def fake_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        out = super().fake_loss(samples, batch, rng)
        if not self.has_critic:
            return out
        assert batch is not None
        exit = torch.arange(rng.size, device=rng.device) % len(self.exits)
        t = self.levels(rng, exit)
        x = samples.x[: rng.size]
        real_t = self.path.add_noise(batch.images, rng.normal_like(batch.images), t)
        fake_t = self.path.add_noise(x, rng.normal_like(x), t)
        labels = None if samples.labels is None else samples.labels[: rng.size]
        real = Look(real_t, t, self.conditions(batch.labels, exit))
        fake = Look(fake_t, t, self.conditions(labels, samples.exit[: rng.size]))
        critic = self.gan.critic_loss(real, fake, rng).mean()
        return LossOut(out.loss + self.critic_weight * critic, {"critic_loss": critic.detach()})
