"""Rows of the methods of straight lines."""

from typing import Any

import torch
from gaussian import MEAN, STD, Affinity, Fault, Row, alpha, compose, ddim_map, sigma, x0_of
from torch import Tensor

from service.methods.flowdreamer import FlowDreamerSettings
from service.methods.instaflow import InstaFlowSettings
from service.methods.perflow import PeRFlowSettings
from service.methods.reflow import ReflowSettings
from service.methods.slimflow import SlimFlowSettings
from workers.diffusion.losses import flow_weight, squared
from workers.diffusion.solver import jump
from workers.methods import perflow
from workers.methods.flowdreamer import FlowDreamer
from workers.methods.instaflow import InstaFlow
from workers.methods.perflow import PeRFlow
from workers.methods.slimflow import SlimFlow
from workers.templates import scores, straight


def straight_line(t: float, _s: float) -> Affinity:
    """x_t = alpha x0 + sigma eps with x0 = STD eps + MEAN: the noise, and so the image, is known from x_t."""
    gain = STD / (alpha(t) * STD + sigma(t))
    return gain, MEAN - gain * alpha(t) * MEAN


def dpm2_map(t: float, s: float) -> Affinity:
    """One second-order step of the Gaussian teacher."""
    middle = (t + s) / 2
    variance = (alpha(middle) * STD) ** 2 + sigma(middle) ** 2
    x0 = compose((alpha(middle) * STD**2 / variance, sigma(middle) ** 2 * MEAN / variance), ddim_map(t, middle))
    keep = sigma(s) / sigma(t)
    scale = alpha(s) - keep * alpha(t)
    return scale * x0[0] + keep, scale * x0[1]


def two_windows(t: float, _s: float) -> Affinity:
    """The x0 of the line through x_t, in windows of two solver steps."""
    first, last = (1.0, 0.5) if t > 0.5 else (0.5, 0.0)
    middle = (first + last) / 2
    gain, offset = x0_of(compose(dpm2_map(middle, last), dpm2_map(first, middle)), first, last)
    keep = sigma(t) / sigma(first)
    scale = alpha(t) - keep * alpha(first)
    along, shift = scale * gain + keep, scale * offset  # x_t, from x at the window's start
    return gain / along, offset - gain / along * shift


def of_the_noise(self: Any, at: Any) -> Tensor:
    """The other end of the line."""
    return at.noise


def not_inverted(x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor, path: Any) -> Tensor:
    """The window's end in place of the x0 that leads there."""
    return x_s


def off_the_line(x: Tensor, x0: Tensor, t: Tensor, s: Tensor, path: Any) -> Tensor:
    return 2 * path.alpha(s).to(x)[:, None] * x0 - jump(x, x0, t, s, path)


def away(self: Any, output: Tensor, target: Tensor, at: Any) -> Tensor:
    return -flow_weight(at.t, self.path).to(output) * squared(output, target)


LEARN = {"batch_size": 512, "learning_rate": 2e-3, "ema_decay": 0.98}

ROWS = {
    "reflow": Row(
        ReflowSettings(iterations=1),
        straight_line,
        faults=[
            Fault(straight.Straight, "target", of_the_noise),
            Fault(straight.Straight, "distance", away),  # sign error
        ],
        mixture=(ReflowSettings(iterations=1500, pairs=20_000, pair_steps=16, **LEARN), 1, 0.006),
    ),
    "instaflow": Row(
        InstaFlowSettings(iterations=1, distil_iterations=1),
        straight_line,
        short={"iterations": 7, "distil_iterations": 5},
        faults=[Fault(InstaFlow, "target", of_the_noise)],
        mixture=(
            InstaFlowSettings(iterations=900, distil_iterations=900, pairs=20_000, pair_steps=16, **LEARN),
            1,
            0.006,
        ),
    ),
    "perflow": Row(
        PeRFlowSettings(windows=2, iterations=1),
        two_windows,
        faults=[
            Fault(perflow, "invert_target", not_inverted),
            Fault(perflow, "jump", off_the_line),  # sign error
            Fault(PeRFlow, "distance", away),  # sign error
        ],
        prediction="v",
        mixture=(PeRFlowSettings(iterations=900, window_steps=4, **LEARN), 4, 0.006),
    ),
    "slimflow": Row(
        SlimFlowSettings(iterations=1, distil_iterations=1, annealing=0),
        straight_line,
        short={"iterations": 7, "distil_iterations": 5},
        faults=[Fault(SlimFlow, "target", of_the_noise)],
        mixture=(
            SlimFlowSettings(iterations=900, distil_iterations=900, pairs=20_000, pair_steps=16, **LEARN),
            1,
            0.006,
        ),
    ),
    "flowdreamer": Row(  # no mixture: the samples contract to one point, as the solution here says
        FlowDreamerSettings(iterations=1),
        lambda t, s: (0, MEAN),  # the mode
        faults=[
            Fault(FlowDreamer, "noise", lambda self, samples, t, rng: -torch.ones_like(samples.x)),
            Fault(FlowDreamer, "other", lambda self, samples, x_t, t: x_t),  # a swapped score
            Fault(scores, "follow", lambda x, g: (x * -g).mean(1)),  # sign error
        ],
    ),
}
