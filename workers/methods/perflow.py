"""Piecewise rectified flow, Yan et al., arXiv:2405.07510."""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from service.methods.perflow import PeRFlowSettings
from workers.data.source import Batch
from workers.diffusion.losses import flow_weight, squared
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import dpm2, invert_target, jump
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression


class PeRFlow(Regression[PeRFlowSettings]):
    """A window runs from t_k down to t_(k-1). A noised image at t_k, and where the teacher takes it until t_(k-1), are
    joined by a straight line, along which the student learns the velocity.

    Straight is meant in x/alpha over sigma/alpha, where also a DDIM step is a straight line. So the line is that of one
    x0, the one with which a DDIM step takes the window's start to its end, and one step per window follows it in any
    scheduler that takes DDIM steps. The loss is of the velocity in the terms of rectified flow, eps - x0.

    Deviation: places are drawn more often near the window's start, with a density that falls to nothing at its end. At
    that time the next window starts with a line of its own, and a network of a continuous time learns a mean of both.
    """

    sampler_kind = "ddim"

    def __init__(self, settings: PeRFlowSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        spec = SamplerSpec.on(self.path, "ddim", [settings.windows])
        self.windows = torch.tensor(spec.times(settings.windows), dtype=torch.float64)

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        window = (rng.uniform() * len(self.windows)).long()
        t, s = self.windows[window].unbind(1)
        return t, s

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        """Somewhere along the line; `images` are the x0 that it belongs to."""
        start = super().draw(batch, segment, rng)
        with torch.no_grad():
            x0 = invert_target(start.x.double(), self.end_of_window(start), start.t, start.s, self.path).to(start.x)
        t = torch.lerp(start.s, start.t, rng.uniform().sqrt())
        x = jump(start.x, x0, start.t, t, self.path)
        return replace(start, x=x, t=t, images=x0)

    def end_of_window(self, at: Draw) -> Tensor:
        """In float64: the x0 of a narrow window divides by a small number."""
        x, steps = at.x.double(), self.settings.window_steps
        times = [torch.lerp(at.t, at.s, torch.tensor(i / steps, dtype=torch.float64)) for i in range(steps + 1)]
        for t, s in pairwise(times):
            x = dpm2(lambda x, t: self.teacher.predict(x.to(at.x), t, at.labels), x, t, s, self.path)
        return x

    def target(self, at: Draw) -> Tensor:
        return at.images

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return flow_weight(at.t, self.path).to(output) * squared(output, target)
