"""Stable Diffusion XL: a UNet that is told a prompt by two encoders, its pooled embedding, and sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from workers.models.unet_backbone import UNetBackbone


class SDXL(UNetBackbone):
    """arXiv:2307.01952. The sizes say: an image of the size it was trained on, not cropped."""

    pipeline = StableDiffusionXLPipeline

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        prompt, _, pooled, _ = pipe.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        height, width = (side * pipe.vae_scale_factor for side in cls.shape_of(pipe.unet)[1:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=prompt.dtype, device=prompt.device)
        return {"prompt": prompt, "pooled": pooled, "sizes": sizes.repeat(len(prompts), 1)}

    @classmethod
    def null(cls, pipe: Any) -> dict[str, Tensor]:
        """Zeros where the pipeline says so, else the empty prompt."""
        rows = cls.encode(pipe, [""])
        if pipe.config.force_zeros_for_empty_prompt:
            rows |= {name: torch.zeros_like(rows[name]) for name in ("prompt", "pooled")}
        return rows

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        added = {"text_embeds": rows["pooled"], "time_ids": rows["sizes"]}
        return self.network(x, time, encoder_hidden_states=rows["prompt"], added_cond_kwargs=added, return_dict=False)[
            0
        ]
