"""Tiny DiT."""

import copy
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from tiny import Fault, Tiny, forgotten, wrong_prediction, wrong_time
from tiny_stable_diffusion import SIZE, vae
from torch import Tensor

from workers.families.dit import DiT


def transformer() -> DiTTransformer2DModel:
    torch.manual_seed(3)
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        sample_size=SIZE,
        patch_size=2,
        num_embeds_ada_norm=1000,  # the pipeline knows no other null class than 1000
    )
    return network.eval()


def scheduler() -> DDIMScheduler:
    """The noise schedule of DiT and of PixArt, at the default spacing of DDIMScheduler.

    Its first time is not the last one of training, where alpha is 1/160: x0 = (x - sigma eps)/alpha of random weights
    would have as many times the rounding errors.
    """
    return DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False, timestep_spacing="leading")


def dit() -> DiTPipeline:
    return DiTPipeline(transformer=transformer(), vae=vae(scaling_factor=0.18215), scheduler=scheduler())


def run(pipe: Any, prompts: list[str], noise: Tensor, steps: int, guidance: float) -> Tensor:
    """The pipeline draws its own noise and ends with images: it is given the one and overheard at what it decodes.

    Prompt i stands for class i.
    """
    classes = list(range(len(prompts)))
    with (
        patch("diffusers.pipelines.dit.pipeline_dit.randn_tensor", return_value=noise),
        patch.object(pipe.vae, "decode", wraps=pipe.vae.decode) as decode,
    ):
        pipe(classes, num_inference_steps=steps, guidance_scale=guidance, output_type="pt")
    latents: Tensor = decode.call_args.args[0] * pipe.vae.config.scaling_factor
    return latents


def wrong_half(denoiser: Any, _: pytest.MonkeyPatch) -> None:
    """The learned variance taken for the prediction."""
    denoiser.network = copy.deepcopy(denoiser.network)  # the pipeline's own stays right
    denoiser.network.register_forward_hook(lambda _, __, out: (out[0].roll(out[0].shape[1] // 2, 1),))


def wrong_null(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guidance away from the last class."""
    monkeypatch.setattr(denoiser, "null_label", denoiser.null_label - 1)


FAULTS = [
    Fault("time", wrong_time),
    Fault("prediction", wrong_prediction),
    Fault("class", forgotten("labels")),
    Fault("variance", wrong_half),
    Fault("null", wrong_null),
]
TINY = {"dit": Tiny(DiT, dit, run, FAULTS)}
