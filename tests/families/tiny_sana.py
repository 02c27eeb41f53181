"""Tiny SANA."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
from tiny import Fault, Tiny, forgotten, wrong_prediction, wrong_time
from tiny_sd3 import SHIFTED
from tiny_text import LETTERS
from torch import Tensor
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from workers.families.sana import Sana

SIZE = 16
"""Latents: the pipeline takes only multiples of 32 pixels."""
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]


def gemma_tokenizer() -> GemmaTokenizer:
    """Each letter is a token, and so is a space; the beginning is marked, so that the empty prompt has one token."""
    pieces = [*SPECIAL, "▁", *LETTERS]
    return GemmaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, add_bos_token=True)


def gemma(width: int = 16) -> Gemma2Model:
    torch.manual_seed(1)
    config = Gemma2Config(
        vocab_size=len(SPECIAL) + 1 + len(LETTERS),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
        query_pre_attn_scalar=8,
    )
    return Gemma2Model(config).eval()


def transformer() -> SanaTransformer2DModel:
    """With a scale of the time that is not 1, so that it shows."""
    torch.manual_seed(3)
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=SIZE,
        timestep_scale=0.5,
    ).eval()


def vae() -> AutoencoderDC:
    torch.manual_seed(4)
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    ).eval()


def sana() -> SanaPipeline:
    """With a scheduler of first order, and the shift of the multistep one that is published with the models."""
    return SanaPipeline(
        tokenizer=gemma_tokenizer(),
        text_encoder=gemma(),
        vae=vae(),
        transformer=transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def run(pipe: Any, prompts: list[str], noise: Tensor, steps: int, guidance: float) -> Tensor:
    """The size of the image is that of the noise, whatever `height` and `width` say."""
    latents: Tensor = pipe(
        prompts,
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=guidance,
        complex_human_instruction=None,
        use_resolution_binning=False,
        output_type="latent",
    ).images
    return latents


def unscaled_time(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's own scale of the time forgotten."""
    call, scale = denoiser.call, denoiser.network.config.timestep_scale
    monkeypatch.setattr(denoiser, "call", lambda x, time, rows: call(x, time / scale, rows))


def unmasked(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding taken for words."""
    monkeypatch.setattr(denoiser.conditions, "mask", torch.ones_like(denoiser.conditions.mask))


TINY = {
    "sana": Tiny(
        Sana,
        sana,
        run,
        [
            *SHIFTED,
            Fault("time", wrong_time),
            Fault("prediction", wrong_prediction),
            Fault("prompt", forgotten("prompt")),
            Fault("mask", unmasked),
            Fault("time scale", unscaled_time),
        ],
    )
}
