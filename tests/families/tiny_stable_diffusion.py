"""Tiny Stable Diffusion 1.x, 2.x and XL."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tiny import Fault, Tiny, forgotten, pixels, wrong_prediction, wrong_time
from tiny_text import clip, clip_tokenizer, clip_with_projection
from torch import Tensor

from workers.families import sdxl as sdxl_adapter
from workers.families.sdxl import SDXL
from workers.families.stable_diffusion import StableDiffusion

SIZE = 8


def unet(context: int, **more: Any) -> UNet2DConditionModel:
    torch.manual_seed(3)
    network = UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=context,
        **more,
    )
    return network.eval()


def vae(**more: Any) -> AutoencoderKL:
    torch.manual_seed(4)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * SIZE,
        **more,
    ).eval()


def scheduler(**more: Any) -> DDIMScheduler:
    """Stable Diffusion's noise schedule, at the spacing that few-step students are run with."""
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return DDIMScheduler(**settings | {"timestep_spacing": "trailing", "set_alpha_to_one": True} | more)


def stable_diffusion(**more: Any) -> StableDiffusionPipeline:
    with TemporaryDirectory() as folder:
        tokenizer = clip_tokenizer(Path(folder))
    return StableDiffusionPipeline(
        vae=vae(scaling_factor=0.18215),
        text_encoder=clip(),
        tokenizer=tokenizer,
        unet=unet(16),
        scheduler=scheduler(**more),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    with TemporaryDirectory() as folder:
        tokenizers = [clip_tokenizer(Path(folder)) for _ in range(2)]
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    return StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=clip(),
        text_encoder_2=clip_with_projection(),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet(32, projection_class_embeddings_input_dim=6 * 8 + 16, use_linear_projection=True, **added),
        scheduler=scheduler(),
        force_zeros_for_empty_prompt=True,
    )


def run(pipe: Any, prompts: list[str], noise: Tensor, steps: int, guidance: float) -> Tensor:
    latents: Tensor = pipe(
        prompts,
        **pixels(pipe, noise),
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    return latents


def wrong_sizes(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the network, whatever the size of x is."""
    own = sdxl_adapter.sizes(torch.zeros(1, *denoiser.shape), denoiser.pixels)
    monkeypatch.setattr(sdxl_adapter, "sizes", lambda x, _: own.expand(len(x), -1))


COMMON = [Fault("time", wrong_time), Fault("prediction", wrong_prediction), Fault("prompt", forgotten("prompt"))]
SDXLS = [Fault("pooled", forgotten("pooled")), Fault("sizes", wrong_sizes)]
TINY = {
    "stable-diffusion-1": Tiny(StableDiffusion, stable_diffusion, run, COMMON),
    "stable-diffusion-2": Tiny(StableDiffusion, lambda: stable_diffusion(prediction_type="v_prediction"), run, COMMON),
    "sdxl": Tiny(SDXL, sdxl, run, COMMON + SDXLS),
}
