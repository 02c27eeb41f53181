"""Template: the student's prediction regresses to a target that carries no gradient. Most methods are of this shape."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from service.methods.base import FeatureSettings, MethodSettings
from workers.data.source import Batch
from workers.diffusion.losses import per_sample, squared
from workers.methods.base import LossOut, Method
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng

S = TypeVar("S", bound=MethodSettings)


@dataclass(frozen=True)
class Draw:
    """Where the student is asked: at x [B, ...] and the times t [B], on the way to the times s [B].

    `images` and `noise` [B, ...] are what x was made of; `labels` [B] or None; `segment` as in `Method.loss`;
    `scale` [B] of the guidance, where the method draws one.
    """

    x: Tensor
    t: Tensor
    s: Tensor
    labels: Tensor | None
    images: Tensor
    noise: Tensor
    segment: int
    scale: Tensor | None = None

    def part(self, rows: Tensor) -> Self:
        """The rows that are True in `rows` [B]."""
        parts: dict[str, Any] = {name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **parts)


class Regression(Method[S]):
    """E distance(output, sg[target]): a method says where the student is asked, what it should answer, and how far off
    an answer is.

    Where it is asked to, the student also learns the teacher's features there (arXiv:1412.6550, section 2.2).
    """

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.feature_weight = settings.feature_weight if isinstance(settings, FeatureSettings) else 0.0
        if self.feature_weight > 0:
            self.projection = projection(self.student.feature_channels[-1], teacher.feature_channels[-1], teacher.shape)
            self.trainable["student"] = nn.ModuleList([self.student, self.projection])

    @abstractmethod
    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        """Times t [B] and s [B], s < t, on the teacher's path."""

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        """By default a real image, noised up to t; with a pair's own noise, where the batch is of pairs."""
        assert batch is not None
        t, s = self.times(rng, segment)
        noise = rng.normal_like(batch.images) if batch.noise is None else batch.noise
        x = self.path.add_noise(batch.images, noise, t)
        return Draw(x, t, s, batch.labels, batch.images, noise, segment)

    @abstractmethod
    def target(self, at: Draw) -> Tensor:
        """What the student should answer [B, ...]. Called without gradients."""

    def output(self, at: Draw) -> Tensor:
        """The student's answer [B, ...]; by default its x0."""
        return self.student.predict(at.x, at.t, at.labels)

    @abstractmethod
    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        """How far off the answer is, weighted [B]."""

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        at = self.draw(batch, segment, rng)
        with torch.no_grad():
            target = self.target(at)
        loss = self.distance(self.output(at), target, at).mean()
        if self.feature_weight == 0:
            return LossOut(loss)
        feature = self.feature_distance(at).mean()
        return LossOut(loss + self.feature_weight * feature, {"feature_loss": feature.detach()})

    def feature_distance(self, at: Draw) -> Tensor:
        """Of the student's deepest features from the teacher's, as a share of the latter's mean square [B]."""
        with torch.no_grad():
            theirs = self.teacher.features(at.x, at.t, at.labels)[-1]
        own = self.projection(self.student.features(at.x, at.t, at.labels)[-1])
        return squared(own, theirs) / per_sample(theirs**2)


def projection(own: int, theirs: int, shape: tuple[int, ...]) -> nn.Module:
    """Linear in the channels."""
    return nn.Linear(own, theirs) if len(shape) == 1 else nn.Conv2d(own, theirs, 1)
