"""Tiny FLUX.1, schnell and dev."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tiny import Fault, Tiny, pixels
from tiny_sd3 import COMMON, SHIFTED, vae
from tiny_text import clip, clip_tokenizer, t5, t5_tokenizer
from torch import Tensor

from workers.families import flux
from workers.families.flux import Flux


def schnell(guidance_embeds: bool = False, **scheduler: Any) -> FluxPipeline:
    with TemporaryDirectory() as folder:
        tokenizer = clip_tokenizer(Path(folder))
    torch.manual_seed(3)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(**scheduler),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=clip(),
        tokenizer=tokenizer,
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
    )


def dev() -> FluxPipeline:
    return schnell(guidance_embeds=True, shift=3.0, use_dynamic_shifting=True)


def run(
    pipe: Any, prompts: list[str], noise: Tensor, steps: int, guidance: float, embedded_guidance: float = 3.5
) -> Tensor:
    batch, channels, height, width = noise.shape
    packed = pipe(
        prompts,
        negative_prompt=[""] * batch,  # one text for all would be one row, which it cannot join to the images
        true_cfg_scale=guidance,
        guidance_scale=embedded_guidance,
        **pixels(pipe, noise),
        latents=pipe._pack_latents(noise, batch, channels, height, width),
        num_inference_steps=steps,
        output_type="latent",
    ).images
    latents: Tensor = pipe._unpack_latents(packed, **pixels(pipe, noise), vae_scale_factor=pipe.vae_scale_factor)
    return latents


def wrong_guidance(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network told that it is not guided."""
    monkeypatch.setattr(denoiser, "embedded_guidance", 1.0)


def wrong_positions(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns taken for rows."""
    right = flux.positions
    monkeypatch.setattr(flux, "positions", lambda patches: right(patches)[:, [0, 2, 1]])


def turned(x: Tensor) -> Tensor:
    """Rows and columns within each patch the other way round."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).transpose(3, 5).reshape(x.shape)


def wrong_packing(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch packed column by column, and unpacked so."""
    call = denoiser.call
    monkeypatch.setattr(denoiser, "call", lambda x, time, rows: turned(call(turned(x), time, rows)))


PACKED = [Fault("positions", wrong_positions), Fault("packing", wrong_packing)]
TINY = {
    "flux-schnell": Tiny(Flux, schnell, run, COMMON + PACKED),
    "flux-dev": Tiny(Flux, dev, run, COMMON + PACKED + SHIFTED + [Fault("guidance", wrong_guidance)]),
}
