"""Template: a flow map whose jumps are compared where they would end, at the clean image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from service.methods.templates import SoftConsistencySettings
from workers.data.source import Batch
from workers.diffusion.ema import ema_update
from workers.diffusion.losses import pseudo_huber, squared, v_weight
from workers.diffusion.paths import expand
from workers.diffusion.solver import dpm2
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.flow_map import FlowMap
from workers.templates.regression import Draw

HUBER_C = 0.03
PART = 0.25
"""Of the batch: terms besides the soft consistency are taken there."""

S = TypeVar("S", bound=SoftConsistencySettings)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients go through the network to its input, and none to its weights."""
    learning = [parameter.requires_grad for parameter in network.parameters()]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, learns in zip(network.parameters(), learning, strict=True):
            parameter.requires_grad_(learns)


@dataclass(frozen=True, kw_only=True)
class Way(Draw):
    """From t to s, with the time u [B] in between at which the teacher hands over."""

    u: Tensor


@dataclass(frozen=True, kw_only=True)
class Trip(Way):
    """The student's jump x_s = G(x_t, t, s), and the clean images that it (x0) and the target (x0_target) lead to, each
    [B, ...]."""

    x_s: Tensor
    x0: Tensor
    x0_target: Tensor


class SoftConsistency(FlowMap[S]):
    """x_t jumps to s at once, or by the teacher to u and by an average of the student from u to s, s <= u < t; then
    both jump to the clean image, where they are compared.

    The student's last jump is by its own weights, held fixed; so all that is learnt is the jump to s.
    """

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.average = self.student.frozen_copy()
        self.followers = {"target": self.average}

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        """t of the grid, and any earlier s of it for one half of the batch; the end, s = 0, for the other.

        Of all pairs of times the way to the end counts most: every sampler takes it last, and one step takes no other.
        """
        steps = self.settings.grid_steps
        t = 1 + (rng.uniform() * steps).floor()
        s = ((2 * rng.uniform() - 1).clamp(min=0) * t).floor()
        return t / steps, s / steps

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Way:
        """u is of the grid, from s up to the last before t."""
        at, steps = super().draw(batch, segment, rng), self.settings.grid_steps
        u = at.s + (rng.uniform() * ((at.t - at.s) * steps).round()).floor() / steps
        return Way(**vars(at), u=u)

    def solve(self, at: Way) -> Tensor:
        """The teacher's way from x_t to u."""

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return self.teacher.predict(x, t, at.labels)

        steps, x = self.settings.solver_steps, at.x
        times = [torch.lerp(at.t, at.u, i / steps) for i in range(steps + 1)]
        for i in range(steps):
            x = dpm2(predict, x, times[i], times[i + 1], self.path)
        return x

    def target(self, at: Draw) -> Tensor:
        assert isinstance(at, Way)
        x_s = self.map(self.average, self.solve(at), at.u, at.s, at.labels)
        return self.map(self.average, x_s, at.s, torch.zeros_like(at.s), at.labels)

    def trip(self, batch: Batch | None, segment: int, rng: BatchRng) -> Trip:
        at = self.draw(batch, segment, rng)
        x_s = self.output(at)
        with frozen(self.student):
            x0 = self.map(self.student, x_s, at.s, torch.zeros_like(at.s), at.labels)
        with torch.no_grad():
            x0_target = self.target(at)
        return Trip(**vars(at), x_s=x_s, x0=x0, x0_target=x0_target)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        """In units of the noise: a plain distance of clean images grows with the noise level."""
        scale = expand(1 / torch.sin(self.path.angle(at.t)), output)
        return pseudo_huber(scale * output, scale * target, HUBER_C)

    def denoising(self, at: Draw) -> Tensor:
        """How far the map's smallest steps, s = t, are from the teacher's [B]."""
        with torch.no_grad():
            x0 = self.teacher.predict(at.x, at.t, at.labels)
        own = self.student.predict(at.x, at.t, at.labels, s=at.t)
        return v_weight(at.t, self.path).to(own) * squared(own, x0)

    def part(self, trip: Trip, rng: BatchRng) -> Trip:
        """A random part of the batch, `PART` of it over all workers."""
        return trip.part(rng.uniform() < PART)

    def mean_of_part(self, terms: Tensor, whole: Trip) -> Tensor:
        """What stands for the mean over `whole`, of terms that were taken on a part of it."""
        return terms.sum() / (PART * len(whole.t))

    def after_step(self) -> None:
        ema_update(self.average, self.student, self.settings.target_decay)
