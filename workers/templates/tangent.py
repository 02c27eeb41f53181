"""Template: a velocity learns from its own derivative along the flow: F -> sg[F + tangent]."""

from abc import abstractmethod
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from service.methods.templates import TangentSettings
from workers.data.source import Batch
from workers.diffusion.jvp import directional, one_sided
from workers.diffusion.losses import per_sample, squared
from workers.diffusion.paths import Path, expand
from workers.diffusion.timesteps import log_normal
from workers.methods.base import LossOut, Method
from workers.models.counter import Counter
from workers.models.denoiser import Denoiser
from workers.precision import exact
from workers.randomness import BatchRng
from workers.templates.regression import Draw

TIME_MARGIN = 1e-3
"""Times are kept so far from both ends of the path."""

S = TypeVar("S", bound=TangentSettings)


class TangentMatch(Method[S]):
    """E distance(F, sg[F + tangent]): a method says which way F should go, given how it changes along the flow.

    F is a velocity dx/dt on the method's own path, whatever the network predicts and on whatever path. All derivatives
    are of the student itself and carry no gradient.
    """

    flow_path: ClassVar[Path]
    """The path of the method's paper; the times of a `Draw` are on it."""

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.counter = Counter()
        self.followers = {"counter": self.counter}

    @abstractmethod
    def times(self, rng: BatchRng) -> tuple[Tensor, Tensor]:
        """Times t [B] and s <= t [B]."""

    @abstractmethod
    def tangent(self, at: Draw, F: Tensor) -> Tensor:
        """What F, the student's velocity at `at`, is off by [B, ...]. Called without gradients."""

    def distance(self, F: Tensor, target: Tensor, at: Draw) -> Tensor:
        """How far off the velocity is, weighted [B]."""
        return squared(F, target)

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        assert batch is not None
        t, s = (self.inside(times) for times in self.times(rng))
        noise = rng.normal_like(batch.images)
        x = self.flow_path.add_noise(batch.images, noise, t)
        at = Draw(x, t, s, batch.labels, batch.images, noise, segment)
        F = self.F(self.student, x, t, s, batch.labels)
        with torch.no_grad():
            tangent = self.tangent(at, F)
            target = F + tangent
        return LossOut(self.distance(F, target, at).mean(), {"tangent": tangent.square().mean().sqrt()})

    def noise_level(self, rng: BatchRng) -> Tensor:
        """Times [B] at which sigma/alpha is log-normal."""
        low, high = self.inside(torch.tensor([0.0, self.flow_path.t_max], dtype=torch.float64))
        return log_normal(
            rng.uniform(), self.settings.time_mean, self.settings.time_std, self.flow_path, low, float(high)
        )

    def inside(self, times: Tensor) -> Tensor:
        """Kept off both ends of the path."""
        return times.clamp(TIME_MARGIN, self.flow_path.t_max - TIME_MARGIN)

    def ramp(self, steps: int) -> float:
        """From 0 to 1 over the first `steps` steps."""
        return min(1.0, self.counter.share(steps)) if steps else 1.0

    def F(self, network: Denoiser, x: Tensor, t: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """The velocity of `network` [B, ...]: from t to s on average, where it knows s."""
        return network.predict(x, t, labels, "flow", self.flow_path, s=s if network.knows_target else None)

    def velocity(self, at: Draw) -> Tensor:
        """dx/dt at (x, t) [B, ...]: the teacher's, or that of the one image and noise that x was made of."""
        if self.settings.velocity == "teacher":
            return self.F(self.teacher, at.x, at.t, at.s, at.labels)
        path, images = self.flow_path, at.images
        return expand(path.dalpha(at.t), images) * images + expand(path.dsigma(at.t), images) * at.noise

    def slope(self, at: Draw, F: Tensor, dx: Tensor, time: Literal["t", "s"] = "t") -> Tensor:
        """dF along (dx, 1) in x and the time asked for [B, ...]; F is the value at `at`.

        A difference looks to where the answer comes from: what is right at small t - s spreads to larger ones, and a
        central difference would let it be overrun from there. It is of equal width in log(sigma/alpha) everywhere, and
        so does not reach over the ends of the path.
        """

        def f(x: Tensor, now: Tensor) -> Tensor:
            t, s = (now, at.s) if time == "t" else (at.t, now)
            return self.F(self.student, x, t, s, at.labels)

        now, path, step = at.t if time == "t" else at.s, self.flow_path, self.settings.difference_step
        if step is None:
            return directional(f, at.x, now, dx, torch.ones_like(now))[1]
        alpha, sigma = path.alpha(now), path.sigma(now)
        scale = alpha * sigma / (alpha * path.dsigma(now) - sigma * path.dalpha(now))  # d time/d log(sigma/alpha)
        away = step if time == "t" else -step
        with exact():  # rounded to half precision, the two ends of a short difference would be mostly noise
            value = F if self.student.precision is None else f(at.x, now)
            return one_sided(f, value, at.x, now, expand(scale, dx) * dx, scale, away) / expand(scale, dx)

    def after_step(self) -> None:
        self.counter.count()


def normalised(tangent: Tensor, c: float) -> Tensor:
    """g/(|g| + c) with the root mean square of each sample for its norm, so that c means the same at all sizes."""
    norm = per_sample(tangent**2).sqrt()
    return tangent / expand(norm + c, tangent)
