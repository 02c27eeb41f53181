"""FLUX.1 (schnell, dev): joint attention over packed patches of a VAE's latents and a prompt by T5."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from diffusers import FluxPipeline
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from workers.models.flow_backbone import FlowBackbone
from workers.models.stock import rectified_flow
from workers.models.transformer_backbone import as_image

PATCH = 2
EMBEDDED_GUIDANCE = 3.5
"""The pipeline's own default, which its students are run with as well."""


class Flux(FlowBackbone):
    """Rectified flow (arXiv:2403.03206) in a network of its own. CLIP gives only the pooled embedding; no mask.

    The network of dev was distilled from a guided one (arXiv:2210.03142) and takes the scale as an input: it is guided
    without a null label. Guidance over that leads away from the empty prompt at the same embedded scale, which is what
    the pipeline calls `true_cfg_scale`.

    The network knows no size of its own. The VAE's is that of the published pipelines, 1024 pixels.
    """

    pipeline = FluxPipeline
    plain_arguments: ClassVar[dict[str, Any]] = {}  # what it calls guidance is an input of the network
    lora_targets = (*FlowBackbone.lora_targets, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        side = pipe.vae.config.sample_size // pipe.vae_scale_factor
        shape = (pipe.transformer.config.in_channels // PATCH**2, side, side)
        path = rectified_flow(pipe.scheduler, (side // PATCH) ** 2)
        made = cls(pipe.transformer, path, "flow", shape, cls.encoded(pipe, prompts))
        made.embedded_guidance = EMBEDDED_GUIDANCE if pipe.transformer.config.guidance_embeds else None
        return made

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        prompt, pooled, _ = pipe.encode_prompt(list(prompts))
        return {"prompt": prompt, "pooled": pooled}

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        network: Any = self.network
        patches = pixel_unshuffle(x, PATCH)
        told = None if self.embedded_guidance is None else time.new_full((len(x),), self.embedded_guidance)
        out = network(
            hidden_states=patches.flatten(2).transpose(1, 2),
            timestep=time.to(x.dtype) / 1000,  # rounded to the network's precision first, as the pipeline does
            guidance=told,
            encoder_hidden_states=rows["prompt"],
            pooled_projections=rows["pooled"],
            txt_ids=x.new_zeros(rows["prompt"].shape[1], 3),
            img_ids=positions(patches),
            return_dict=False,
        )[0]
        return pixel_shuffle(as_image(out, x), PATCH)

    def multiple(self) -> int | None:
        return PATCH

    def blocks(self) -> list[nn.Module]:
        network: Any = self.network
        return [*network.transformer_blocks, *network.single_transformer_blocks]

    def tokens(self, output: Any) -> Tensor:
        tokens: Tensor = output[1]
        return tokens


def positions(patches: Tensor) -> Tensor:
    """[h w, 3]: 0, row and column of each of the patches [B, C, h, w], row by row."""
    axes = (torch.arange(n, device=patches.device, dtype=patches.dtype) for n in (1, *patches.shape[-2:]))
    return torch.cartesian_prod(*axes)
