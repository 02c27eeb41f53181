"""Rows of the methods that follow a difference of scores."""

from typing import Any

import torch
from gaussian import MEAN, STD, Fault, Row, alpha, sigma
from torch import Tensor, nn

from service.methods.base import MethodSettings
from service.methods.diff_instruct import DiffInstructSettings
from service.methods.dmd import DMDSettings
from service.methods.f_distill import FDistillSettings
from service.methods.sdi import SDISettings
from service.methods.sds import SDSSettings
from service.methods.swiftbrush import SwiftBrushSettings
from service.methods.vsd import VSDSettings
from workers.diffusion.losses import distribution_gradient, follow, noise_gradient, squared
from workers.diffusion.paths import VPCosine, expand
from workers.methods import diff_instruct, dmd, f_distill, sdi, sds, swiftbrush, vsd
from workers.templates import scores


class ExactCritic(nn.Module):
    """log(real density/fake density) of noised samples whose mean is off by `offset`."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset, self.path = offset, VPCosine()

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        a, e = expand(self.path.alpha(t), x), expand(self.path.sigma(t), x)
        fake, real = x - a * (MEAN + self.offset), x - a * MEAN
        return 0.5 * (fake**2 - real**2) / ((a * STD) ** 2 + e**2)


def move_fake(method: Any, offset: float) -> None:
    """A fake score that has caught up with the samples."""
    method.fake.means += offset


def move_fake_and_critic(method: Any, offset: float) -> None:
    move_fake(method, offset)
    method.gan.critic = ExactCritic(offset)


def leaky_follow(x: Tensor, gradient: Tensor) -> Tensor:
    """Without its stop-gradient."""
    return 0.5 * squared(x, x - gradient)


def noise_to_data(_t: float, _s: float) -> tuple[float, float]:
    return STD, MEAN


def noise_to_the_mode(_t: float, _s: float) -> tuple[float, float]:
    return 0.0, MEAN


def noise_to_inversion(_t: float, _s: float) -> tuple[float, float]:
    """At the first noise level x0 = m + g z is at rest where the teacher gives it back from the noise k z, which four
    half-way iterations from z find: all maps are linear, k = one + other g."""
    a, e = alpha(scores.T_MAX), sigma(scores.T_MAX)
    keep = a * STD**2 / ((a * STD) ** 2 + e**2)  # of the teacher's x0
    one, other = 1.0, 0.0
    for _ in range(4):
        one, other = (one + (1 - a * keep) * one) / 2, (other + (1 - a * keep) * (a / e + other)) / 2
    gain = keep * e * one / (1 - keep * (a + e * other))
    return gain, MEAN


def mixture(settings: type[MethodSettings], bar: float = 0.02, **changes: Any) -> tuple[MethodSettings, int, float]:
    given = {"iterations": 500, "batch_size": 512, "learning_rate": 5e-4, "ema_decay": 0.98}
    return settings(**given | changes), 1, bar


SIGN = Fault(scores, "follow", lambda x, g: follow(x, -g))
NO_STOP_GRADIENT = Fault(scores, "follow", leaky_follow)
SHORT = {"iterations": 12, "fake_updates": 2}

ROWS = {
    "diff_instruct": Row(
        DiffInstructSettings(iterations=1),
        noise_to_data,
        short=SHORT,
        follow=move_fake,
        faults=[
            SIGN,
            NO_STOP_GRADIENT,
            Fault(diff_instruct.DiffInstruct, "gradient", lambda self, at: at.real - at.fake),  # swapped scores
        ],
        mixture=mixture(DiffInstructSettings),
    ),
    "dmd": Row(
        DMDSettings(iterations=1, regression_weight=0.01),
        noise_to_data,
        short={**SHORT, "pairs": 64, "pair_steps": 2},
        follow=move_fake,
        faults=[
            SIGN,
            Fault(dmd, "distribution_gradient", lambda x, real, fake: distribution_gradient(x, fake, real)),  # swapped
            Fault(dmd, "squared", lambda a, b: 300 * squared(a, -b)),  # the sign of the pairs' images
        ],
        mixture=mixture(DMDSettings, pairs=4096, pair_steps=16),
    ),
    "swiftbrush": Row(
        SwiftBrushSettings(iterations=1),
        noise_to_data,
        short={**SHORT, "steps": 2},
        follow=move_fake,
        faults=[
            NO_STOP_GRADIENT,
            Fault(swiftbrush, "noise_gradient", lambda real, fake, t, p: noise_gradient(fake, real, t, p)),  # swapped
        ],
        mixture=mixture(SwiftBrushSettings),
    ),
    "vsd": Row(
        VSDSettings(iterations=1),
        noise_to_data,
        short=SHORT,
        follow=move_fake,
        faults=[
            SIGN,
            Fault(vsd.VSD, "other", lambda self, samples, x_t, t: samples.x / 2),  # no score of the samples
        ],
        mixture=mixture(VSDSettings),
    ),
    "f_distill": Row(
        FDistillSettings(iterations=1),
        noise_to_data,
        short={**SHORT, "gan_weight": 0.01},
        follow=move_fake_and_critic,
        faults=[
            SIGN,
            Fault(f_distill, "H", {"js": lambda r: 1 - r}),  # a weight that is no divergence's
        ],
        mixture=mixture(FDistillSettings),
    ),
    "sds": Row(  # no mixture: it gives a mode, and test_core_scores.py says so
        SDSSettings(iterations=1),
        noise_to_the_mode,
        faults=[
            SIGN,
            NO_STOP_GRADIENT,
            Fault(sds.SDS, "other", lambda self, samples, x_t, t: torch.zeros_like(x_t)),  # not the injected noise
        ],
    ),
    "sdi": Row(
        SDISettings(iterations=1),
        noise_to_inversion,
        short={"iterations": 12, "inversion_steps": 2, "steps": 2},
        faults=[
            SIGN,
            Fault(sdi.SDI, "noise", lambda self, samples, t, rng: torch.ones_like(samples.x)),  # not the sample's
        ],
        mixture=mixture(SDISettings),
    ),
}
