"""Rows of the methods whose student regresses to what its teacher, or the student itself, makes of a point."""

from typing import Any

import torch
from gaussian import MEAN, STD, Affinity, Fault, Row, alpha, compose, ddim_map, sigma, x0_of
from torch import Tensor

from rows.first import flipped_inversion, flipped_step, two_steps
from service.methods.boot import BootSettings
from service.methods.guidance import GuidanceSettings
from service.methods.kd import KDSettings
from service.methods.snapfusion import SnapFusionSettings
from service.methods.tract import TractSettings
from workers.diffusion.losses import pseudo_huber, squared
from workers.methods import boot, guidance, kd, tract
from workers.templates import ladder


def segment_of_four(t: float, _s: float) -> Affinity:
    """Small steps of 1/8 from t to the end of its segment, of which there are two."""
    k = round(t * 8)
    end = 4 * ((k - 1) // 4)
    total = (1.0, 0.0)
    for i in range(k, end, -1):
        total = compose(ddim_map(i / 8, (i - 1) / 8), total)
    return x0_of(total, t, end / 8)


def signal(_t: float, s: float) -> Affinity:
    """What eight DDIM steps have brought out of a noise at s; at 1 the teacher's x0, its mean."""
    total = (1.0, 0.0)
    for i in range(8, round(s * 8), -1):
        total = compose(ddim_map(i / 8, (i - 1) / 8), total)
    return x0_of(total, 1.0, s) if s < 1 else (0.0, MEAN)


def denoiser(t: float, _s: float) -> Affinity:
    variance = (alpha(t) * STD) ** 2 + sigma(t) ** 2
    return alpha(t) * STD**2 / variance, sigma(t) ** 2 * MEAN / variance


def move_self_teacher(method: Any, offset: float) -> None:
    method.self_teacher.do += offset


honest = boot.Boot.coefficient


def negated(output: Tensor, target: Tensor) -> Tensor:
    return squared(output, -target)


NO_CLASSES: dict[str, Any] = {"guidance_scale": 1, "low_guidance": 1, "high_guidance": 1}
"""Neither the Gaussian nor the mixture has classes, so all there is to learn is scale 1; see test_core_guidance.py."""

ROWS = {
    "kd": Row(
        KDSettings(iterations=1),
        lambda t, s: (STD, MEAN),
        short={"iterations": 12},
        faults=[
            Fault(kd, "pseudo_huber", lambda a, b, c: pseudo_huber(a, -b, c)),  # a sign
            Fault(kd.KD, "target", lambda self, at: at.noise),  # the wrong end of the pair
        ],
        mixture=(
            KDSettings(pairs=20_480, iterations=1500, batch_size=512, learning_rate=2e-3, ema_decay=0.98),
            1,
            0.006,
        ),
    ),
    "tract": Row(
        TractSettings(teacher_steps=8, first_steps=2, last_steps=1, phase_iterations=1),
        segment_of_four,
        short={"phase_iterations": 6},
        follow=move_self_teacher,
        faults=[
            Fault(tract, "jump", flipped_step),  # a sign
            Fault(tract, "invert_target", flipped_inversion),  # a sign
            Fault(tract, "invert_target", lambda x_t, x_s, t, s, path: x_s),  # the point itself as the target
        ],
        mixture=(
            TractSettings(phase_iterations=800, batch_size=512, learning_rate=2e-3, ema_decay=0.98),
            1,
            0.006,
        ),
    ),
    "boot": Row(
        BootSettings(grid_steps=8, iterations=1),
        signal,
        faults=[
            Fault(boot, "jump", flipped_step),  # a sign
            Fault(boot.Boot, "coefficient", lambda self, t, s: -honest(self, t, s)),  # a sign
        ],
        mixture=(
            BootSettings(iterations=1500, grid_steps=10, batch_size=512, learning_rate=2e-3, ema_decay=0.98),
            1,
            0.006,
        ),
    ),
    "snapfusion": Row(
        SnapFusionSettings(first_steps=2, last_steps=1, rung_iterations=1, cfg_probability=0),
        two_steps,
        short={"first_steps": 2, "last_steps": 1, "rung_iterations": 3, "cfg_probability": 0},
        faults=[Fault(ladder, "jump", flipped_step), Fault(ladder, "invert_target", flipped_inversion)],  # signs
        mixture=None,  # without classes it is `progressive`; with classes, see test_core_guidance.py
    ),
    "guidance": Row(
        GuidanceSettings(iterations=1, **NO_CLASSES),
        denoiser,
        short={"iterations": 12, **NO_CLASSES},
        faults=[
            Fault(guidance, "squared", negated),  # a sign
            Fault(guidance.Guidance, "target", lambda self, at: torch.zeros_like(at.x)),
        ],
        mixture=None,  # without classes there is nothing to learn; with classes, see test_core_guidance.py
    ),
}
