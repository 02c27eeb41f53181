"""Improved distribution matching distillation, Yin et al., arXiv:2405.14867."""

import torch
from torch import Tensor, nn

from service.methods import DMD2Settings
from workers.data.source import Batch
from workers.diffusion.losses import (
    distribution_gradient,
    follow,
    gan_discriminator,
    gan_generator,
    squared,
    v_weight,
)
from workers.diffusion.sampler import consistency_function
from workers.diffusion.timesteps import uniform
from workers.methods.base import LossOut, Method
from workers.models.denoiser import Denoiser
from workers.models.unet2d import UNetDenoiser, critic_head
from workers.randomness import BatchRng

T_RANGE = (0.02, 0.98)
CRITIC_WEIGHT = 0.01


class DMD2(Method[DMD2Settings]):
    """The student descends KL(student, teacher) at every noise level: its gradient is a difference of two scores.

    The fake score is trained on the student's samples, on a clock of its own (section 4.2). With `gan_weight`, a critic
    on the fake score's features tells the samples from images (4.3). With several steps, training sees what sampling
    sees: the student's own renoised outputs (4.5, backward simulation).
    """

    sampler_kind = "renoise"

    def __init__(self, settings: DMD2Settings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.times = self.sampler(0).times(settings.steps)
        self.fake = teacher.trainable_copy()
        self.trainable["fake"] = self.fake
        if settings.gan_weight > 0:
            assert isinstance(self.fake, UNetDenoiser)
            self.critic = critic_head(self.fake.feature_channels)
            self.trainable["fake"] = nn.ModuleList([self.fake, self.critic])

    @property
    def needs_images(self) -> bool:
        return self.settings.gan_weight > 0

    def turns(self, step: int) -> list[str]:
        return ["fake"] * self.settings.fake_updates + ["student"]

    def learning_rate(self, role: str) -> float:
        return self.settings.fake_learning_rate if role == "fake" else self.settings.learning_rate

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        if role == "fake":
            with torch.no_grad():
                x, labels = self.generate(rng)
            return self.fake_loss(x, labels, batch, rng)
        x, labels = self.generate(rng)
        return self.student_loss(x, labels, rng)

    def generate(self, rng: BatchRng) -> tuple[Tensor, Tensor | None]:
        """Samples [B, ...] of the student with gradients of their last step alone, and their labels.

        One rollout leaves a sample at each of its K exits, so B/K rollouts make the batch, every exit equally often.
        """
        rollouts = -(-rng.size // len(self.times))
        labels = None
        if self.teacher.num_classes is not None:
            labels = (rng.uniform(rollouts) * self.teacher.num_classes).long().to(rng.device)
        x = rng.normal(self.teacher.shape, rollouts)
        inputs = [x]
        for t, s in self.times[:-1]:
            with torch.no_grad():
                x = self.path.add_noise(self.f(x, t, labels), rng.normal(self.teacher.shape, rollouts), _times(s, x))
            inputs.append(x)
        t_all = torch.tensor([t for t, _ in self.times], dtype=torch.float64).repeat_interleave(rollouts)
        labels_all = None if labels is None else labels.repeat(len(self.times))
        return self.f_at(torch.cat(inputs), t_all, labels_all), labels_all

    def f_at(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return consistency_function(x, self.student.predict(x, t, labels), t, self.path.timesteps)

    def f(self, x: Tensor, t: float, labels: Tensor | None) -> Tensor:
        return self.f_at(x, _times(t, x), labels)

    def student_loss(self, x: Tensor, labels: Tensor | None, rng: BatchRng) -> LossOut:
        t = uniform(rng.uniform(len(x)), *T_RANGE)
        x_t = self.path.add_noise(x, rng.normal(self.teacher.shape, len(x)), t)
        with torch.no_grad():
            real = self.teacher.predict(x_t, t, labels)
            fake = self.fake.predict(x_t, t, labels)
            gradient = distribution_gradient(x, real, fake)
        loss = follow(x, gradient).mean()
        logs = {"gradient_norm": gradient.square().mean().sqrt()}
        if self.settings.gan_weight > 0:
            logs["gan_loss"] = gan = gan_generator(self.logits(x_t, t, labels)).mean()
            loss = loss + self.settings.gan_weight * gan
        return LossOut(loss, {k: v.detach() for k, v in logs.items()})

    def fake_loss(self, x: Tensor, labels: Tensor | None, batch: Batch | None, rng: BatchRng) -> LossOut:
        t = uniform(rng.uniform(len(x)), *T_RANGE)
        x_t = self.path.add_noise(x, rng.normal(self.teacher.shape, len(x)), t)
        loss = (v_weight(t, self.path).to(x) * squared(self.fake.predict(x_t, t, labels), x)).mean()
        if batch is None:
            return LossOut(loss)
        t_real = uniform(rng.uniform(), *T_RANGE)
        real_t = self.path.add_noise(batch.images, rng.normal(self.teacher.shape), t_real)
        critic = gan_discriminator(
            self.logits(real_t, t_real, batch.labels), self.logits(x_t, t, labels)[: len(real_t)]
        ).mean()
        return LossOut(loss + CRITIC_WEIGHT * critic, {"critic_loss": critic.detach()})

    def logits(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        assert isinstance(self.fake, UNetDenoiser)
        return self.critic(self.fake.features(x_t, t, labels))


def _times(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.float64)
