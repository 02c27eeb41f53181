"""Tiny Z-Image."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from tiny import Fault, Tiny, forgotten, pixels, wrong_prediction, wrong_time
from tiny_sd3 import SHIFTED
from tiny_text import LETTERS
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from workers.families.z_image import LENGTH, ZImage

SIZE = 8
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPACE, NEWLINE = "Ġ", "Ċ"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Each letter is a token, and so are a space and the end of a line."""
    pieces = [*SPECIAL, SPACE, NEWLINE, *LETTERS]
    return Qwen2Tokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        extra_special_tokens=SPECIAL[1:],
        chat_template=CHAT,
    )


def qwen(width: int = 16) -> Qwen3Model:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=len(SPECIAL) + 2 + len(LETTERS),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=LENGTH,
    )
    return Qwen3Model(config).eval()


def transformer() -> ZImageTransformer2DModel:
    """With pads that are no zeros, as learned ones are."""
    torch.manual_seed(3)
    network = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=4,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 32, 32],
    )
    torch.nn.init.normal_(network.x_pad_token)
    torch.nn.init.normal_(network.cap_pad_token)
    return network.eval()


def vae() -> AutoencoderKL:
    torch.manual_seed(4)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * SIZE,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def z_image() -> ZImagePipeline:
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=qwen(),
        tokenizer=qwen_tokenizer(),
        transformer=transformer(),
    )


def run(pipe: Any, prompts: list[str], noise: Tensor, steps: int, guidance: float) -> Tensor:
    """The pipeline guides by c + g (c - u), so its g is one less than ours. It writes into the list of prompts."""
    latents: Tensor = pipe(
        list(prompts),
        **pixels(pipe, noise),
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=guidance - 1,
        output_type="latent",
    ).images
    return latents


def flipped_time(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that is 1 at the noise."""
    call = denoiser.call
    monkeypatch.setattr(denoiser, "call", lambda x, time, rows: call(x, 1000 - time, rows))


def flipped_sign(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """x0 - eps taken for eps - x0."""
    call = denoiser.call
    monkeypatch.setattr(denoiser, "call", lambda x, time, rows: -call(x, time, rows))


def uncut(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zeros after a prompt taken for words."""
    full = torch.full_like(denoiser.conditions.length, LENGTH)
    monkeypatch.setattr(denoiser.conditions, "length", full)


TINY = {
    "z-image": Tiny(
        ZImage,
        z_image,
        run,
        [
            *SHIFTED,
            Fault("time", wrong_time),
            Fault("prediction", wrong_prediction),
            Fault("prompt", forgotten("prompt")),
            Fault("length", uncut),
            Fault("direction of time", flipped_time),
            Fault("sign", flipped_sign),
        ],
    )
}
