"""Rows of the methods whose student has one answer along a whole trajectory."""

import dataclasses
import math
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from gaussian import Affinity, Fault, Row, alpha, compose, ddim_map, sigma, x0_of
from torch import Tensor

from rows.first import flipped_step, move_average
from service.methods.ct import CTSettings
from service.methods.ect import ECTSettings
from service.methods.ict import ICTSettings
from service.methods.lcm import LCMSettings
from service.methods.pcm import PCMSettings
from service.methods.tcd import TCDSettings
from workers.diffusion.paths import VPCosine
from workers.diffusion.timesteps import noise_level
from workers.methods import ect, ict, lcm, pcm, tcd
from workers.templates import consistency, regression
from workers.templates.regression import Draw

N = 8


@cache
def skipping(i: int) -> Affinity:
    """From point i of the grid to 0, two intervals at a time."""
    return compose(skipping(max(i - 2, 0)), ddim_map(i / N, max(i - 2, 0) / N)) if i else (1.0, 0.0)


@cache
def stepping(i: int, end: int) -> Affinity:
    """From point i of the grid to point `end`, one interval at a time."""
    return compose(stepping(i - 1, end), ddim_map(i / N, (i - 1) / N)) if i > end else (1.0, 0.0)


def end_of_the_phase(t: float, _s: float) -> Affinity:
    """The x0 that leads to the lower edge of the phase of t; there are two phases."""
    i = round(t * N)
    edge = (i - 1) // 4 * 4
    return x0_of(stepping(i, edge), t, edge / N) if i else (1.0, 0.0)


@cache
def mean_of_ends(i: int) -> Affinity:
    """The x0 at point i that a step to each m < i asks for, in the mean that the squared error at m makes."""
    if i == 0:
        return 1.0, 0.0
    t, s, total, sums = i / N, (i - 1) / N, 0.0, (0.0, 0.0)
    for m in range(i):
        onward = (1.0, 0.0) if m == i - 1 else jump_by(mean_of_ends(i - 1), s, m / N)
        gain, offset = x0_of(compose(onward, ddim_map(t, s)), t, m / N)
        unit = jump_by((0.0, 1.0), t, m / N)[1]  # what one of x0 adds to the point at m
        total, sums = total + unit**2, (sums[0] + unit**2 * gain, sums[1] + unit**2 * offset)
    return sums[0] / total, sums[1] / total


def jump_by(x0: Affinity, t: float, s: float) -> Affinity:
    """One DDIM step from t to s with that x0."""
    keep = sigma(s) / sigma(t)
    unit = alpha(s) - keep * alpha(t)
    return keep + unit * x0[0], unit * x0[1]


def x0_behind(f: Affinity, t: float) -> Affinity:
    """The x0 with which the consistency function at t is f."""
    scaled = 10 * max(1000 * t - 1, 0)
    skip, out = 0.25 / (scaled**2 + 0.25), scaled / math.sqrt(scaled**2 + 0.25)
    return ((f[0] - skip) / out, f[1] / out) if out > 0 else (0.0, 0.0)


KARRAS = [0.0, *ict.karras_grid(N + 1, ict.SIGMA_MAX, ict.SIGMA_MIN)[:-2].flip(0).tolist()]
TIMES = ict.time_of_noise_level(torch.tensor(KARRAS, dtype=torch.float64), VPCosine()).tolist()


@cache
def end_of_the_karras_grid(t: float, _s: float) -> Affinity:
    f = (1.0, 0.0)
    for i in range(1, min(range(N + 1), key=lambda i: abs(TIMES[i] - t)) + 1):
        f = compose(f, ddim_map(TIMES[i], TIMES[i - 1]))
    return x0_behind(f, t)


@cache
def end_of_closing_in(t: float, _s: float) -> Affinity:
    """In the first part of training."""

    def f(t: float) -> Affinity:
        level = math.tan(math.pi * t / 2)
        below = max(level * (1 - (1 + 8 / (1 + math.exp(level))) / 4), 0)
        s = math.atan(below) * 2 / math.pi
        return compose(f(s), ddim_map(t, s)) if t > 1e-3 else (1.0, 0.0)

    return x0_behind(f(t), t)


def mirrored(method: Any) -> None:
    """Beside every image and noise, the equally likely ones that mix to the same x_t: targets are as random as before,
    but their mean for each x_t is exact."""
    draw = method.draw

    def both(*args: Any) -> Draw:
        at = draw(*args)
        x0, eps = (method.teacher.predict(at.x, at.t, None, want) for want in ("x0", "eps"))
        twice = {"x": (at.x, at.x), "t": (at.t, at.t), "s": (at.s, at.s)}
        twice |= {"images": (at.images, 2 * x0 - at.images), "noise": (at.noise, 2 * eps - at.noise)}
        return dataclasses.replace(at, **{name: torch.cat(pair) for name, pair in twice.items()})

    method.draw = both


def opposite_noise(self: Any, at: Draw) -> Tensor:
    """The neighbour under the noise with its sign wrong."""
    return self.path.add_noise(at.images, -at.noise, at.s)


def other_noise(self: Any, at: Draw) -> Tensor:
    """The neighbour under a noise of its own."""
    return self.path.add_noise(at.images, at.noise.roll(1, 0), at.s)


def evenly(self: Any, output: Tensor, target: Tensor, at: tcd.Journey) -> Tensor:
    """All ends alike, as if the loss were one of x0."""
    assert at.end is not None
    unit = self.path.alpha(at.end) - self.path.sigma(at.end) / self.path.sigma(at.t) * self.path.alpha(at.t)
    return ((output - target) / unit.to(output)[:, None]).square().mean(1)


ASLEEP = SimpleNamespace(no_grad=nullcontext)
"""In the place of torch where targets are computed: they then carry gradients."""


def learning(**changes: Any) -> dict[str, Any]:
    return {"batch_size": 512, "learning_rate": 2e-3, **changes}


ROWS = {
    "lcm": Row(
        LCMSettings(grid_steps=N, skip=2, iterations=1, guidance_scale=1),
        lambda t, s: skipping(round(t * N)),
        short={"iterations": 12, "guidance_scale": 1},
        follow=move_average,
        faults=[Fault(lcm, "jump", flipped_step)],  # a sign error
        mixture=(LCMSettings(iterations=1500, guidance_scale=1, skip=32, **learning()), 1, 0.006),
    ),
    "tcd": Row(
        TCDSettings(grid_steps=N, iterations=1),
        lambda t, s: mean_of_ends(round(t * N)),
        follow=move_average,
        faults=[
            Fault(tcd, "jump", flipped_step),  # a sign error
            Fault(tcd.TCD, "distance", evenly),  # a wrong weight
        ],
        mixture=(TCDSettings(iterations=1500, **learning()), 4, 0.006),
    ),
    "pcm": Row(
        PCMSettings(phases=2, phase_steps=4, iterations=1),
        end_of_the_phase,
        short={"iterations": 12, "gan_weight": 0.1},
        faults=[Fault(pcm, "jump", flipped_step), Fault(consistency, "jump", flipped_step)],  # sign errors
        mixture=(PCMSettings(iterations=1500, **learning()), 4, 0.006),
    ),
    "ct": Row(
        CTSettings(first_steps=N, last_steps=N, iterations=1),
        lambda t, s: x0_behind(stepping(round(t * N), 0), t),
        follow=move_average,
        prepare=mirrored,
        faults=[
            Fault(consistency.SharedNoise, "neighbour", opposite_noise),  # a sign error
            Fault(consistency.SharedNoise, "neighbour", other_noise),
        ],
        mixture=(CTSettings(iterations=2000, **learning()), 1, 0.02),
    ),
    "ict": Row(
        ICTSettings(first_steps=N, last_steps=N, iterations=1),
        end_of_the_karras_grid,
        prepare=mirrored,
        faults=[
            Fault(consistency.SharedNoise, "neighbour", opposite_noise),  # a sign error
            Fault(ict, "noise_level", lambda t, path: -noise_level(t, path)),  # a wrong weight
            Fault(regression, "torch", ASLEEP),  # a missing stop-gradient
        ],
        mixture=(ICTSettings(iterations=2000, **learning()), 1, 0.02),
    ),
    "ect": Row(
        ECTSettings(iterations=1, quotient=4, log_sigma_mean=0, log_sigma_std=1),
        end_of_closing_in,
        prepare=mirrored,
        faults=[
            Fault(consistency.SharedNoise, "neighbour", opposite_noise),  # a sign error
            Fault(ect, "noise_level", lambda t, path: -noise_level(t, path)),  # a wrong weight
            Fault(regression, "torch", ASLEEP),  # a missing stop-gradient
        ],
        mixture=(ECTSettings(iterations=2000, **learning()), 1, 0.02),
    ),
}
