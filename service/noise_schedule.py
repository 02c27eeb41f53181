"""How much of the image is left at the last timestep of a diffusers noise schedule, computed without diffusers."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

NO_SIGNAL = 0.005
"""Below this share an epsilon prediction says nothing of the image: x0 = (x - sigma eps)/alpha."""


def last_alpha(config: dict[str, Any]) -> float | None:
    """sqrt(alphas_cumprod[-1]) of a scheduler's config; None for a schedule that is not known here.

    The schedules are those of DDIMScheduler: linear, scaled_linear and squaredcos_cap_v2, or `trained_betas`.
    """
    if config.get("rescale_betas_zero_snr"):
        return 0.0
    betas = _betas(config)
    if not betas or not all(0 <= beta <= 1 for beta in betas):
        return None
    return math.sqrt(math.prod(1 - beta for beta in betas))


def _betas(config: dict[str, Any]) -> Sequence[float] | None:
    trained = config.get("trained_betas")
    if trained is not None:
        return [float(beta) for beta in trained]
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    ramp = [i / max(steps - 1, 1) for i in range(steps)]
    match config.get("beta_schedule", "linear"):
        case "linear":
            return [start + (end - start) * part for part in ramp]
        case "scaled_linear":
            return [(math.sqrt(start) + (math.sqrt(end) - math.sqrt(start)) * part) ** 2 for part in ramp]
        case "squaredcos_cap_v2":
            bar = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
            return [min(1 - after / before, 0.999) for before, after in pairwise(bar)]
        case _:
            return None
