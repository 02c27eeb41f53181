"""Tiny UNets on pixels with EDM's preconditioning."""

from typing import Any

import pytest
import torch
from diffusers import ConsistencyModelPipeline, EDMEulerScheduler, UNet2DModel
from tiny import Fault, Tiny, wrong_prediction
from torch import Tensor

from workers.families.edm import EDM

CLASSES = 3


def edm(prediction_type: str = "epsilon") -> ConsistencyModelPipeline:
    torch.manual_seed(6)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=CLASSES + 1,
    )
    return ConsistencyModelPipeline(unet.eval(), EDMEulerScheduler(prediction_type=prediction_type))


def run(pipe: Any, prompts: list[Any], noise: Tensor, steps: int, guidance: float) -> Tensor:
    """Class i for prompt i; the pipeline clips, so it is watched where it has not yet."""
    assert guidance == 1, "this pipeline guides nothing"
    ends: list[Tensor] = []
    post_process = pipe.postprocess_image
    pipe.postprocess_image = lambda images, **rest: ends.append(images) or post_process(images, **rest)
    try:
        pipe(len(noise), list(range(len(prompts))), num_inference_steps=steps, latents=noise, output_type="np")
    finally:
        pipe.postprocess_image = post_process
    return ends[0]


def no_skip(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser, "sigma_data", 1.0)


def wrong_time(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ln(sigma) in the place of ln(sigma)/4."""
    time = denoiser.path.t_to_model
    monkeypatch.setattr(denoiser.path, "t_to_model", lambda t: 4 * time(t))


def wrong_sign(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser, "sign", -denoiser.sign)


FAULTS = [
    Fault("preconditioning", no_skip),
    Fault("time", wrong_time),
    Fault("sign", wrong_sign),
    Fault("prediction", wrong_prediction),
]
TINY = {
    "edm": Tiny(EDM, edm, run, FAULTS, guidances=(1.0,)),
    "edm-v": Tiny(EDM, lambda: edm("v_prediction"), run, FAULTS, guidances=(1.0,)),
}
