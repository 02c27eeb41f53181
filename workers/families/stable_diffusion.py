"""Stable Diffusion 1.x (epsilon) and 2.x (epsilon or v): a UNet on a VAE's latents, told a prompt by CLIP."""

from collections.abc import Sequence
from typing import Any, Self

from diffusers import StableDiffusionPipeline
from torch import Tensor

from workers.models.stock import variance_preserving
from workers.models.unet_backbone import UNetBackbone


class StableDiffusion(UNetBackbone):
    """arXiv:2112.10752. Guidance leads away from the empty prompt."""

    pipeline = StableDiffusionPipeline

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        path, prediction = variance_preserving(pipe.scheduler)
        return cls(pipe.unet, path, prediction, cls.shape_of(pipe.unet), cls.encoded(pipe, prompts))

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {"prompt": pipe.encode_prompt(list(prompts), pipe.device, 1, False)[0]}

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        return self.network(x, time, encoder_hidden_states=rows["prompt"], return_dict=False)[0]
