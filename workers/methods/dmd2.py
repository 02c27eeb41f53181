"""Improved distribution matching distillation, Yin et al., arXiv:2405.14867."""

from dataclasses import dataclass

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

T_MIN, T_MAX = 0.02, 0.98
CRITIC_WEIGHT = 0.01


@dataclass(frozen=True)
class Samples:
    """x [B, ...], its classes [B], and the sampling step [B] that each left at."""

    x: Tensor
    labels: Tensor | None
    exit: Tensor


class DMD2(Method[DMD2Settings]):
    """The student descends KL(student, teacher) at every noise level: its gradient is a difference of two scores.

    The fake score is trained on the student's samples, on a clock of its own (section 4.2). With `gan_weight`, a critic
    on the fake score's features tells the samples from images (4.3). With several steps, training sees what sampling
    sees: the student's own renoised outputs (4.5, backward simulation).

    Deviations, with several steps: every batch holds each exit equally often instead of one exit drawn at random; each
    exit has a fake score of its own; and an exit is compared from the noise level it is renoised to upwards
    (arXiv:2503.06674), since later steps are there for the finer levels.
    """

    sampler_kind = "renoise"

    def __init__(self, settings: DMD2Settings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.times = self.sampler(0).times(settings.steps)
        # Each exit has a score of its own: one score of them all would push the good samples of late exits
        # away from the poor ones of early exits.
        self.fake = teacher.with_conditions(settings.steps)
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
                samples = self.generate(rng, with_gradient=False)
            return self.fake_loss(samples, batch, rng)
        return self.student_loss(self.generate(rng, with_gradient=True), rng)

    def generate(self, rng: BatchRng, with_gradient: bool) -> Samples:
        """Samples of the student, with gradients of their own last step alone.

        One rollout leaves a sample at each of its K exits, so B/K rollouts make the batch, every exit equally often.
        """
        exits = len(self.times)
        rollouts = -(-rng.size // exits)
        labels = None
        if self.teacher.num_classes is not None:
            labels = (rng.uniform(rollouts) * self.teacher.num_classes).long().to(rng.device)
        inputs, outputs = [rng.normal(self.teacher.shape, rollouts)], []
        with torch.no_grad():
            for t, s in self.times[:-1] if with_gradient else self.times:
                outputs.append(self.f(inputs[-1], torch.full((rollouts,), t, dtype=torch.float64), labels))
                noise = rng.normal(self.teacher.shape, rollouts)
                inputs.append(self.path.add_noise(outputs[-1], noise, torch.tensor(s, dtype=torch.float64)))
        exit = torch.arange(exits, device=rng.device).repeat(rollouts)
        labels = None if labels is None else labels.repeat_interleave(exits)
        if with_gradient:
            t_exit = torch.tensor([t for t, _ in self.times], dtype=torch.float64).repeat(rollouts)
            return Samples(self.f(torch.stack(inputs, 1).flatten(0, 1), t_exit, labels), labels, exit)
        return Samples(torch.stack(outputs, 1).flatten(0, 1), labels, exit)

    def f(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return consistency_function(x, self.student.predict(x, t, labels), t, self.path.timesteps)

    def student_loss(self, samples: Samples, rng: BatchRng) -> LossOut:
        x, labels = samples.x, samples.labels
        t = self.levels(rng, samples.exit)
        x_t = self.path.add_noise(x, rng.normal(self.teacher.shape, len(x)), t)
        conditions = self.conditions(labels, samples.exit)
        with torch.no_grad():
            real = self.teacher.predict(x_t, t, labels)
            fake = self.fake.predict(x_t, t, conditions)
            gradient = distribution_gradient(x, real, fake)
        loss, logs = follow(x, gradient).mean(), {"score_gap": gradient.square().mean().sqrt()}
        if self.settings.gan_weight > 0:
            logs["gan_loss"] = gan_generator(self.logits(x_t, t, conditions)).mean()
            loss = loss + self.settings.gan_weight * logs["gan_loss"]
        return LossOut(loss, {name: value.detach() for name, value in logs.items()})

    def fake_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        x, conditions = samples.x, self.conditions(samples.labels, samples.exit)
        t = self.levels(rng, samples.exit)
        x_t = self.path.add_noise(x, rng.normal(self.teacher.shape, len(x)), t)
        loss = (v_weight(t, self.path).to(x) * squared(self.fake.predict(x_t, t, conditions), x)).mean()
        if batch is None:
            return LossOut(loss)
        exit = torch.arange(rng.size, device=rng.device) % len(self.times)
        t_real = self.levels(rng, exit)
        real_t = self.path.add_noise(batch.images, rng.normal(self.teacher.shape), t_real)
        real_logits = self.logits(real_t, t_real, self.conditions(batch.labels, exit))
        critic = gan_discriminator(real_logits, self.logits(x_t, t, conditions)[: len(real_t)]).mean()
        return LossOut(loss + CRITIC_WEIGHT * critic, {"critic_loss": critic.detach()})

    def levels(self, rng: BatchRng, exit: Tensor) -> Tensor:
        """Noise levels [B] to compare samples at: not below the one that renoising will hide (arXiv:2503.06674)."""
        low = torch.tensor([s for _, s in self.times], dtype=torch.float64).clamp(min=T_MIN)
        return uniform(rng.uniform(len(exit)), low[exit.cpu()], T_MAX)

    def conditions(self, labels: Tensor | None, exit: Tensor) -> Tensor:
        """The fake score's labels: which class, and which exit."""
        if labels is None or self.teacher.num_classes is None:
            return exit
        return exit * (self.teacher.num_classes + 1) + labels

    def logits(self, x_t: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        assert isinstance(self.fake, UNetDenoiser)
        return self.critic(self.fake.features(x_t, t, conditions))
