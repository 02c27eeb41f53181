"""Template: methods whose student answers a noised image, and whose main loss is the adversarial term."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from service.methods.templates import AdversarialSettings
from workers.data.source import Batch
from workers.diffusion.sampler import consistency_function
from workers.methods.base import LossOut, Method
from workers.models.critic import BlockCritic
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.adversarial import Adversarial, Levels, Look

A = TypeVar("A", bound=AdversarialSettings)


@dataclass(frozen=True)
class Answer:
    """What the student makes of x [B, ...] at t [B], a time of its own sampler: the clean image x0 [B, ...].

    `images` [B, ...] and `labels` [B]: what x was made of. `exit` [B]: which of the sampler's steps it is, and s [B]
    the next one's time.
    """

    x0: Tensor
    t: Tensor
    s: Tensor
    exit: Tensor
    images: Tensor
    labels: Tensor | None


class AdversarialMethod(Method[A]):
    """Images noised to the times of the student's own sampler, and what it makes of them; the critic is shown both.

    The critic is told which of the sampler's steps made a sample: with one verdict over all of them, the poor samples
    of the first step would say what is fake, and the good ones of the last would be driven past the real ones.
    """

    sampler_kind = "renoise"
    betas = (0.0, 0.99)

    def __init__(self, settings: A, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.exits = torch.tensor(self.sampler(0).times(settings.steps), dtype=torch.float64)
        self.levels = Levels(settings)
        self.gan = Adversarial(settings, self.make_critic(), self.levels)
        self.trainable["critic"] = self.gan.critic
        self.followers["levels"] = self.levels

    def make_critic(self) -> BlockCritic:
        """By default heads on the frozen teacher's features."""
        return BlockCritic(self.teacher, self.settings.steps)

    def critic_times(self, at: Answer, rng: BatchRng) -> Tensor:
        """To which the real and the fake are noised [B]: less than the student's input was.

        What the student gets wrong is finer than the noise it saw: under more noise the critic is blind, and late steps
        drift.
        """
        return self.levels(rng.uniform()) * at.t

    def other_loss(self, at: Answer, rng: BatchRng) -> Tensor | None:
        """What the student descends beside the adversarial term, weighted [B]."""
        return None

    def turns(self, step: int) -> list[str]:
        return ["critic"] * self.settings.critic_updates + ["student"]

    def learning_rate(self, role: str) -> float:
        return self.settings.critic_learning_rate if role == "critic" else self.settings.learning_rate

    def draw_exit(self, u: Tensor) -> Tensor:
        """Steps [B] of uniforms u [B]: half of them the first, which has most to learn; the others equally often."""
        others = len(self.exits) - 1
        return torch.where(u < 0.5, 0, 1 + ((2 * u - 1) * others).floor().long()).clamp(0, others)

    def answer(self, batch: Batch, rng: BatchRng) -> Answer:
        exit = self.draw_exit(rng.uniform())
        t, s = self.exits[exit].unbind(1)
        x = self.path.add_noise(batch.images, rng.normal_like(batch.images), t)
        x0 = consistency_function(x, self.student.predict(x, t, batch.labels), t, self.path)
        return Answer(x0, t, s, exit.to(rng.device), batch.images, batch.labels)

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        assert batch is not None
        with torch.set_grad_enabled(role == "student"):
            at = self.answer(batch, rng)
        t = self.critic_times(at, rng)
        real, fake = (
            Look(self.path.add_noise(x0, rng.normal_like(x0), t), t, at.labels, (at.exit,)) for x0 in (at.images, at.x0)
        )
        if role == "critic":
            return LossOut(self.gan.critic_loss(real, fake, rng).mean())
        loss, other = self.gan.generator_loss(fake), self.other_loss(at, rng)
        logs = {"gan_loss": loss.detach().mean()}
        if other is not None:
            loss, logs["other_loss"] = loss + other, other.detach().mean()
        return LossOut(loss.mean(), logs)

    def after_step(self) -> None:
        self.levels.after_step()
