"""Stable Diffusion XL: a UNet that is told a prompt by two encoders, its pooled embedding, and sizes."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from workers.models.unet_backbone import UNetBackbone


class SDXL(UNetBackbone):
    """arXiv:2307.01952. It is told sizes: an image that was as large as x is, and was not cropped.

    Attributes:
        pixels: to a latent along a side.
    """

    pipeline = StableDiffusionXLPipeline
    pixels: int = 8

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        denoiser = super().of(pipe, prompts)
        pipe.watermark = None  # else its images are marked, and no student's, where invisible-watermark is installed
        denoiser.pixels = pipe.vae_scale_factor
        return denoiser

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        prompt, _, pooled, _ = pipe.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return {"prompt": prompt, "pooled": pooled}

    @classmethod
    def null(cls, pipe: Any) -> dict[str, Tensor]:
        """Zeros where the pipeline says so, else the empty prompt."""
        rows = cls.encode(pipe, [""])
        if pipe.config.force_zeros_for_empty_prompt:
            rows = {name: torch.zeros_like(row) for name, row in rows.items()}
        return rows

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        added = {"text_embeds": rows["pooled"], "time_ids": sizes(x, self.pixels)}
        return self.network(x, time, encoder_hidden_states=rows["prompt"], added_cond_kwargs=added, return_dict=False)[
            0
        ]


def sizes(x: Tensor, pixels: int) -> Tensor:
    """[B, 6] of latents x: height and width of the image, where its crop begins, height and width of the crop."""
    height, width = (side * pixels for side in x.shape[-2:])
    told = (height, width, 0, 0, height, width)
    return torch.stack([x.new_full((len(x),), side, dtype=torch.float32) for side in told], dim=1)
