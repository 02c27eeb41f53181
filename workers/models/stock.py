"""The noise path of a stock diffusers scheduler, and its own grid of times."""

import math
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from service.errors import TeacherInvalid
from workers.diffusion.convert import Prediction
from workers.diffusion.paths import EDM, Path, RectifiedFlow, VPDiscrete

PREDICTION_TYPES: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def variance_preserving(scheduler: Any) -> tuple[VPDiscrete, Prediction]:
    """Path and prediction type of a scheduler with betas, whatever its class.

    Raises:
        TeacherInvalid: the prediction type is not known.
    """
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    asked = config.get("prediction_type", "epsilon")
    prediction = PREDICTION_TYPES.get(asked)
    if prediction is None:
        raise TeacherInvalid(
            f"the scheduler has prediction_type {asked!r}, where the network is one of {sorted(PREDICTION_TYPES)}"
        )
    return VPDiscrete(DDIMScheduler.from_config(config).alphas_cumprod), prediction


def rectified_flow(scheduler: Any, tokens: int) -> RectifiedFlow:
    """The path of a flow-matching scheduler for images of so many tokens, with the shift at which it samples.

    Of FlowMatchEulerDiscreteScheduler and its like `shift`; with `use_dynamic_shifting` e^mu, where mu is linear in the
    tokens (arXiv:2403.03206, section 5.3.2, as the pipelines have it); of DPMSolverMultistepScheduler `flow_shift`.
    """
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return RectifiedFlow(float(config.get("flow_shift") or config.get("shift") or 1.0))
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return RectifiedFlow(math.exp(low + (high - low) * (tokens - few) / (many - few)))


def scheduler_times(scheduler: Any, path: Path) -> Tensor:
    """[steps + 1] falling times of `path`, of a scheduler whose timesteps are set; the last is 0."""
    if isinstance(path, RectifiedFlow | EDM):
        return path.t_of_sigma(scheduler.sigmas.double().cpu())
    times = (scheduler.timesteps.double().cpu() + 1) / path.timesteps
    return torch.cat([times, times.new_zeros(1)])
