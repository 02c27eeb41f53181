"""Tiny PixArt-Sigma."""

from typing import Any

import torch
from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel
from tiny import Fault, Tiny, forgotten, pixels, wrong_prediction, wrong_time
from tiny_dit import scheduler, wrong_half
from tiny_stable_diffusion import SIZE, vae
from tiny_text import t5, t5_tokenizer
from torch import Tensor

from workers.families.pixart_sigma import PixArtSigma


def transformer() -> PixArtTransformer2DModel:
    torch.manual_seed(3)
    network = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        cross_attention_dim=24,
        caption_channels=16,
        sample_size=SIZE,
        patch_size=2,
        use_additional_conditions=False,
    )
    return network.eval()


def pixart_sigma() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(300),
        text_encoder=t5(16),
        vae=vae(scaling_factor=0.13025),
        transformer=transformer(),
        scheduler=scheduler(),
    )


def run(pipe: Any, prompts: list[str], noise: Tensor, steps: int, guidance: float) -> Tensor:
    """At the size asked for: the pipeline's list of sizes has none as small as this one."""
    latents: Tensor = pipe(
        prompts,
        **pixels(pipe, noise),
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
        use_resolution_binning=False,
    ).images
    return latents


FAULTS = [
    Fault("time", wrong_time),
    Fault("prediction", wrong_prediction),
    Fault("prompt", forgotten("prompt")),
    Fault("mask", forgotten("mask")),
    Fault("variance", wrong_half),
]
TINY = {"pixart-sigma": Tiny(PixArtSigma, pixart_sigma, run, FAULTS)}
