"""The adversarial term: a critic tells noised samples from noised images, and the student learns to leave it no clue.

A part of methods, alone or beside other terms. Both kinds are noised before the critic sees them, to one and the same
level (Diffusion-GAN, arXiv:2206.02262): it has something to say where samples and images do not overlap.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from service.methods.templates import CriticSettings, NoisedCriticSettings
from workers.diffusion.losses import (
    gan_discriminator,
    gan_generator,
    hinge_discriminator,
    hinge_generator,
    per_sample,
)
from workers.diffusion.timesteps import uniform
from workers.optim import average_over_workers
from workers.randomness import BatchRng

LOSSES = {
    "non_saturating": (gan_generator, gan_discriminator),
    "hinge": (hinge_generator, hinge_discriminator),
}
NUDGE = 0.03
"""Standard deviation of the noise that an approximate R1 measures slopes with."""
LOWEST = 0.02
FIRST_CEILING, CEILING_STEP, SURE = 0.1, 0.005, 0.6
"""The adaptive ceiling: where it starts, how far it moves per step, and the certainty that it holds (d_target)."""


@dataclass(frozen=True)
class Look:
    """What the critic is shown: x [B, ...] at the noise levels t [B].

    `labels` [B] or None: classes, or classes and conditions. `context`: whatever else the critic of a method takes.
    """

    x: Tensor
    t: Tensor
    labels: Tensor | None
    context: tuple[Tensor, ...] = ()


class Levels(nn.Module):
    """The noise levels that a critic sees: evenly from LOWEST to a ceiling. A follower, for the ceiling may move.

    Adaptive (arXiv:2206.02262, section 3.3, with a uniform in place of a priority distribution): as long as the critic
    is sure of more than a share of real images, the ceiling rises and its task gets harder; otherwise it sinks.
    """

    def __init__(self, settings: NoisedCriticSettings) -> None:
        super().__init__()
        self.adaptive, self.highest = settings.critic_noise == "adaptive", settings.critic_noise_max
        first = min(FIRST_CEILING, self.highest) if self.adaptive else self.highest
        self.ceiling: Tensor
        self.register_buffer("ceiling", torch.tensor(first, dtype=torch.float64))
        self._verdicts: list[Tensor] = []

    def forward(self, u: Tensor) -> Tensor:
        """Times [B] of uniforms u [B]."""
        return uniform(u, LOWEST, float(self.ceiling))

    def watch(self, real_logits: Tensor) -> None:
        """Note how sure the critic is of real images."""
        if self.adaptive:
            self._verdicts.append(real_logits.detach().sign().mean())

    def after_step(self) -> None:
        """Move the ceiling; all workers to the same place."""
        if self._verdicts:
            sure = torch.stack(self._verdicts).mean()
            average_over_workers([sure])
            step = CEILING_STEP if float(sure) > SURE else -CEILING_STEP
            self.ceiling.add_(step).clamp_(min(FIRST_CEILING, self.highest), self.highest)
            self._verdicts.clear()


class Adversarial:
    """Losses of both sides, per sample [B]. The owner trains the `critic` in the turn of one of its roles.

    Args:
        critic: logits [B, ...] of (x, t, labels, *context), the higher the more real.
        levels: what is told of the critic's certainty, where it has noise levels of its own.
    """

    def __init__(self, settings: CriticSettings, critic: nn.Module, levels: Levels | None = None) -> None:
        self.settings, self.critic, self.levels = settings, critic, levels
        self._generator, self._discriminator = LOSSES[settings.gan_loss]

    def logits(self, look: Look) -> Tensor:
        """[B, ...], one or more for each sample. Those of the optimal critic are log(real density/fake density) with
        the non-saturating loss."""
        logits: Tensor = self.critic(look.x, look.t, look.labels, *look.context)
        return logits

    def generator_loss(self, fake: Look) -> Tensor:
        """What the student descends; `fake.x` carries gradients to it."""
        return self._generator(self.logits(fake))

    def critic_loss(self, real: Look, fake: Look, rng: BatchRng) -> Tensor:
        """What the critic descends, with half of R1 (arXiv:1801.04406): the squared slope of its verdict on the real.

        The approximation (a difference along a random direction, over its length) equals it in expectation for small
        noise, so that one weight serves both. It needs no second derivative, which fast attention kernels lack.
        """
        weight, exact = 0.5 * self.settings.r1_weight, self.settings.r1 == "exact"
        x = real.x.detach()
        if weight and exact:
            x.requires_grad_(True)
        verdict = self.logits(Look(x, real.t, real.labels, real.context))
        loss = self._discriminator(verdict, self.logits(Look(fake.x.detach(), fake.t, fake.labels, fake.context)))
        if self.levels is not None:
            self.levels.watch(verdict)
        if weight and exact:
            (slope,) = torch.autograd.grad(per_sample(verdict).sum(), x, create_graph=True)
            loss = loss + weight * slope.square().flatten(1).sum(1)
        elif weight:
            nudged = x + NUDGE * rng.normal_like(x)
            change = per_sample(self.logits(Look(nudged, real.t, real.labels, real.context)) - verdict)
            loss = loss + weight * (change / NUDGE).square()
        return loss
