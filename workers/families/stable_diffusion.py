"""Stable Diffusion 1.x (epsilon) and 2.x (epsilon or v): a UNet on a VAE's latents, told a prompt by CLIP."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor

from workers.models.unet_backbone import UNetBackbone


class StableDiffusion(UNetBackbone):
    """arXiv:2112.10752. Guidance leads away from the empty prompt."""

    pipeline = StableDiffusionPipeline
    unused = MappingProxyType({"safety_checker": StableDiffusionSafetyChecker})

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {"prompt": pipe.encode_prompt(list(prompts), pipe.device, 1, False)[0]}

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        return self.network(x, time, encoder_hidden_states=rows["prompt"], return_dict=False)[0]
