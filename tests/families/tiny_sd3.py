"""Tiny Stable Diffusion 3 and 3.5."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tiny import Fault, Tiny, forgotten, pixels, wrong_prediction, wrong_time
from tiny_text import clip_tokenizer, clip_with_projection, t5, t5_tokenizer
from torch import Tensor

from workers.families.sd3 import SD3
from workers.models.backbone import Backbone

SIZE = 8


def vae(**more: Any) -> AutoencoderKL:
    torch.manual_seed(4)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **more,
    ).eval()


def sd3(**more: Any) -> StableDiffusion3Pipeline:
    with TemporaryDirectory() as folder:
        tokenizers = [clip_tokenizer(Path(folder)) for _ in range(2)]
    torch.manual_seed(3)
    transformer = SD3Transformer2DModel(
        sample_size=SIZE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=40,  # wider than the two CLIPs together, as published: they are padded
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=2 * SIZE,
        **more,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=clip_with_projection(),
        tokenizer=tokenizers[0],
        text_encoder_2=clip_with_projection(),
        tokenizer_2=tokenizers[1],
        text_encoder_3=t5(40),
        tokenizer_3=t5_tokenizer(),
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


def wrong_sign(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """x0 - eps taken for eps - x0."""
    call = denoiser.call
    monkeypatch.setattr(denoiser, "call", lambda x, time, rows: -call(x, time, rows))


def unshifted_time(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path's t for its sigma."""
    monkeypatch.setattr(denoiser.path, "t_to_model", lambda t: 1000 * t)


def unshifted_velocity(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """dx/dsigma taken for dx/dt."""
    monkeypatch.setattr(denoiser, "raw", lambda x, t, labels, s=None: Backbone.raw(denoiser, x, t, labels, s))


COMMON = [
    Fault("time", wrong_time),
    Fault("prediction", wrong_prediction),
    Fault("sign", wrong_sign),
    Fault("prompt", forgotten("prompt")),
    Fault("pooled", forgotten("pooled")),
]
SHIFTED = [Fault("shift of the time", unshifted_time), Fault("shift of the velocity", unshifted_velocity)]
TINY = {
    "sd3": Tiny(SD3, sd3, run, COMMON + SHIFTED),
    "sd3.5": Tiny(SD3, lambda: sd3(qk_norm="rms_norm", dual_attention_layers=(0, 1)), run, COMMON + SHIFTED),
}
