"""Template: a generator follows the difference of two scores, the teacher's and that of its own samples."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from service.methods.templates import GeneratorSettings, ScoreSettings
from workers.data.source import Batch
from workers.diffusion.losses import follow, squared, v_weight
from workers.diffusion.sampler import SamplerKind, consistency_function
from workers.diffusion.timesteps import uniform
from workers.methods.base import LossOut, Method
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng

T_MIN, T_MAX = 0.02, 0.98

G = TypeVar("G", bound=GeneratorSettings)
S = TypeVar("S", bound=ScoreSettings)


@dataclass(frozen=True)
class Samples:
    """x [B, ...], its classes [B], the sampling step [B] that each left at, and what that step was taken from."""

    x: Tensor
    labels: Tensor | None
    exit: Tensor
    origin: Tensor | None = None


@dataclass(frozen=True)
class Compared:
    """Samples, noised to times t [B], and what the two scores, as x0 [B, ...], say there."""

    samples: Samples
    x_t: Tensor
    t: Tensor
    real: Tensor
    fake: Tensor


class Generator(Method[G]):
    """The student's samples x are noised to x_t; the teacher's x0 there, less another one, says where x should go.

    With several steps, training sees what sampling sees: the student's own renoised outputs (backward simulation,
    arXiv:2405.14867, section 4.5), and every batch holds each exit equally often.
    """

    sampler_kind: ClassVar[SamplerKind] = "renoise"

    def __init__(self, settings: G, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.exits = self.sampler(0).times(settings.steps)

    @abstractmethod
    def gradient(self, at: Compared) -> Tensor:
        """What the samples x descend [B, ...]. Called without gradients."""

    @abstractmethod
    def other(self, samples: Samples, x_t: Tensor, t: Tensor) -> Tensor:
        """The x0 [B, ...] that the teacher's is compared with."""

    def noise(self, samples: Samples, t: Tensor, rng: BatchRng) -> Tensor:
        """With which the samples are noised [B, ...]."""
        return rng.normal_like(samples.x)

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        return self.student_loss(self.generate(rng, with_gradient=True, batch=batch), batch, rng)

    def student_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        return self.descend(self.compare(samples, rng))

    def descend(self, at: Compared) -> LossOut:
        """A loss whose gradient in the samples is `gradient`."""
        with torch.no_grad():
            gradient = self.gradient(at)
        return LossOut(follow(at.samples.x, gradient).mean(), {"score_gap": gradient.square().mean().sqrt()})

    def compare(self, samples: Samples, rng: BatchRng, through_scores: bool = False) -> Compared:
        """Ask both scores at a random noise level. `through_scores`: their answers carry gradients to the samples."""
        t = self.levels(rng, samples.exit)
        x_t = self.path.add_noise(samples.x, self.noise(samples, t, rng), t)
        with torch.set_grad_enabled(through_scores):
            real = self.teacher.predict(x_t, t, samples.labels)
            fake = self.other(samples, x_t, t)
        return Compared(samples, x_t, t, real, fake)

    def f(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """One step of the student, to a clean image."""
        return consistency_function(x, self.student.predict(x, t, labels), t, self.path)

    def generate(self, rng: BatchRng, with_gradient: bool, batch: Batch | None = None) -> Samples:
        """Samples of the student, with gradients of their own last step alone; as large as the batch's images.

        One rollout leaves a sample at each of its K exits, so B/K rollouts make the batch, every exit equally often.
        """
        exits = len(self.exits)
        rollouts = -(-rng.size // exits)
        labels = self.classes(rng, rollouts)
        shape = self.teacher.shape if batch is None else batch.images.shape[1:]
        inputs, outputs = [rng.normal(shape, rollouts)], []
        with torch.no_grad():
            for t, s in self.exits[:-1] if with_gradient else self.exits:
                outputs.append(self.f(inputs[-1], torch.full((rollouts,), t, dtype=torch.float64), labels))
                noise, level = rng.normal_like(outputs[-1]), torch.tensor(s, dtype=torch.float64)
                inputs.append(self.path.add_noise(outputs[-1], noise, level))
        exit = torch.arange(exits, device=rng.device).repeat(rollouts)
        labels = None if labels is None else labels.repeat_interleave(exits)
        origin = torch.stack(inputs[:exits], 1).flatten(0, 1)
        if with_gradient:
            t_exit = torch.tensor([t for t, _ in self.exits], dtype=torch.float64).repeat(rollouts)
            return Samples(self.f(origin, t_exit, labels), labels, exit, origin)
        return Samples(torch.stack(outputs, 1).flatten(0, 1), labels, exit, origin)

    def classes(self, rng: BatchRng, rows: int) -> Tensor | None:
        """To make samples of [rows], each equally often; None, if the teacher knows none."""
        if self.teacher.num_classes is None:
            return None
        return (rng.uniform(rows) * self.teacher.num_classes).long().to(rng.device)

    def lowest(self, exit: Tensor) -> Tensor:
        """Noise levels [B] below which samples are not compared: renoising will hide them (arXiv:2503.06674)."""
        return torch.tensor([s for _, s in self.exits], dtype=torch.float64).clamp(min=T_MIN)[exit.cpu()]

    def levels(self, rng: BatchRng, exit: Tensor) -> Tensor:
        """Noise levels [B] to compare samples at."""
        return uniform(rng.uniform(len(exit)), self.lowest(exit), T_MAX)


class ScoreMatching(Generator[S]):
    """The other score is that of the student's own samples: their difference is the gradient of a divergence.

    The fake score is trained on the student's samples, on a clock of its own. Each exit has a score of its own: one
    score of them all would push the good samples of late exits away from the poor ones of early exits. With
    `fake_lora_rank` it is a low-rank update of the teacher (arXiv:2305.16213, section 3.2), on the teacher's weights.
    """

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.fake = self.low_rank(teacher, settings.fake_lora_rank).with_conditions(settings.steps)
        self.trainable["fake"] = self.fake_module()

    def fake_module(self) -> nn.Module:
        """What the fake score's turn trains."""
        return self.fake

    def turns(self, step: int) -> list[str]:
        return ["fake"] * self.settings.fake_updates + ["student"]

    def learning_rate(self, role: str) -> float:
        return self.settings.fake_learning_rate if role == "fake" else self.settings.learning_rate

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        if role == "fake":
            with torch.no_grad():
                samples = self.generate(rng, with_gradient=False, batch=batch)
            return self.fake_loss(samples, batch, rng)
        return super().loss(role, batch, segment, rng)

    def other(self, samples: Samples, x_t: Tensor, t: Tensor) -> Tensor:
        return self.fake.predict(x_t, t, self.conditions(samples.labels, samples.exit))

    def fake_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        """Denoising of the student's samples, as v."""
        x, conditions = samples.x, self.conditions(samples.labels, samples.exit)
        t = self.levels(rng, samples.exit)
        x_t = self.path.add_noise(x, rng.normal_like(x), t)
        return LossOut((v_weight(t, self.path).to(x) * squared(self.fake.predict(x_t, t, conditions), x)).mean())

    def conditions(self, labels: Tensor | None, exit: Tensor) -> Tensor:
        """The fake score's labels: which class, and which exit."""
        if labels is None or self.teacher.num_classes is None:
            return exit
        return exit * (self.teacher.num_classes + 1) + labels
