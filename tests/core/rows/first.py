"""Rows of the three methods of three shapes."""

from typing import Any

from gaussian import MEAN, STD, Fault, Row, compose, ddim_map, x0_of
from torch import Tensor

from service.methods.consistency import ConsistencySettings
from service.methods.dmd2 import DMD2Settings
from service.methods.progressive import ProgressiveSettings
from workers.diffusion.losses import distribution_gradient, follow
from workers.diffusion.paths import VPCosine
from workers.methods import dmd2
from workers.templates import consistency, ladder, scores


def flipped_step(x: Tensor, x0: Tensor, t: Tensor, s: Tensor, path: VPCosine) -> Tensor:
    """DDIM with the sign of the noise wrong."""
    eps = (x - path.alpha(t).to(x)[:, None] * x0) / path.sigma(t).to(x)[:, None]
    return path.alpha(s).to(x)[:, None] * x0 - path.sigma(s).to(x)[:, None] * eps


def flipped_inversion(x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor, path: VPCosine) -> Tensor:
    keep = path.sigma(s) / path.sigma(t)
    return (x_s + keep[:, None] * x_t) / (path.alpha(s) - keep * path.alpha(t))[:, None]


def two_steps(t: float, _s: float) -> tuple[float, float]:
    s = t - 0.5  # the first rung has two steps
    return x0_of(compose(ddim_map((t + s) / 2, s), ddim_map(t, (t + s) / 2)), t, s)


def end_of_the_grid(t: float, _s: float) -> tuple[float, float]:
    total = (1.0, 0.0)
    for i in range(round(t * 8), 0, -1):
        total = compose(ddim_map(i / 8, (i - 1) / 8), total)
    return total


def move_average(method: Any, offset: float) -> None:
    method.reference.do += offset


def move_fake(method: Any, offset: float) -> None:
    """A fake score that has caught up with the samples."""
    method.fake.means += offset


ROWS = {
    "progressive": Row(
        ProgressiveSettings(first_steps=2, last_steps=1, rung_iterations=1),
        two_steps,
        short={"first_steps": 2, "last_steps": 1, "rung_iterations": 3},
        faults=[Fault(ladder, "jump", flipped_step), Fault(ladder, "invert_target", flipped_inversion)],
        mixture=(
            ProgressiveSettings(
                first_steps=16, last_steps=1, rung_iterations=250, batch_size=512, learning_rate=2e-3, ema_decay=0.98
            ),
            1,
            0.006,
        ),
    ),
    "consistency": Row(
        ConsistencySettings(grid_steps=8, iterations=1),
        end_of_the_grid,
        follow=move_average,
        faults=[Fault(consistency, "jump", flipped_step)],
        mixture=(ConsistencySettings(iterations=1500, batch_size=512, learning_rate=2e-3, grid_steps=32), 1, 0.006),
    ),
    "dmd2": Row(
        DMD2Settings(iterations=1),
        lambda t, s: (STD, MEAN),  # noise to data
        short={"iterations": 12, "steps": 2, "fake_updates": 2},
        follow=move_fake,
        faults=[
            Fault(dmd2, "distribution_gradient", lambda x, real, fake: distribution_gradient(x, fake, real)),
            Fault(scores, "follow", lambda x, g: follow(x, -g)),
        ],
        mixture=(
            DMD2Settings(
                iterations=500,
                batch_size=512,
                learning_rate=5e-4,
                fake_learning_rate=2e-3,
                fake_updates=3,
                ema_decay=0.98,
            ),
            1,
            0.02,
        ),
    ),
}
