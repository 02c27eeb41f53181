"""Teachers of all families, large enough that weights and activations are both a good share of what a job needs."""

from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from tiny_all import TINY

from workers.families.z_image import ZImage

UNET = {"block_out_channels": (32, 64), "layers_per_block": 2, "norm_num_groups": 8, "sample_size": 16}
JOINT = {"num_layers": 6, "attention_head_dim": 16, "num_attention_heads": 4}
PATCHES = {"num_attention_heads": 4, "attention_head_dim": 24, "num_layers": 8, "sample_size": 16}
WIDER: dict[str, dict[str, Any]] = {
    "stable-diffusion-1": UNET,
    "sdxl": UNET | {"transformer_layers_per_block": 2},
    "dit": PATCHES,
    "pixart-sigma": PATCHES | {"cross_attention_dim": 96},
    "sd3": JOINT | {"caption_projection_dim": 64, "sample_size": 16, "pos_embed_max_size": 32},
    "sd3.5": JOINT | {"caption_projection_dim": 64, "sample_size": 16, "pos_embed_max_size": 32},
    "flux-dev": {"num_layers": 3, "num_single_layers": 6, "attention_head_dim": 16, "num_attention_heads": 4},
    "sana": {"num_layers": 8, "attention_head_dim": 16, "num_attention_heads": 4}
    | {"num_cross_attention_heads": 4, "cross_attention_head_dim": 16, "cross_attention_dim": 64},
    "z-image": {"dim": 96, "n_layers": 8, "n_refiner_layers": 1, "n_heads": 6, "n_kv_heads": 6},
}
"""What is changed of the tiny networks' configs."""


def large(name: str, folder: Path) -> Path:
    """A teacher's folder."""
    if name == "unet2d":
        network = UNet2DModel(in_channels=3, out_channels=3, **UNET | {"down_block_types": DOWN, "up_block_types": UP})
        DDPMPipeline(network, DDIMScheduler(beta_schedule="linear")).save_pretrained(folder)
        return folder
    pipe = TINY[name].make()
    part = TINY[name].family.part
    network = getattr(pipe, part)
    pipe.register_modules(**{part: type(network).from_config(dict(network.config) | WIDER[name]).eval()})
    if TINY[name].family is ZImage:
        pipe.vae.register_to_config(sample_size=32)  # it has no size of its own
    pipe.save_pretrained(folder)
    return folder


DOWN, UP = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
