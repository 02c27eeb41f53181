"""Stable Diffusion 3 and 3.5: joint attention over patches of a VAE's latents and a prompt by two CLIPs and T5."""

from collections.abc import Sequence
from typing import Any, Self

from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from workers.models.flow_backbone import FlowBackbone
from workers.models.stock import rectified_flow


class SD3(FlowBackbone):
    """arXiv:2403.03206. Guidance leads away from the empty prompt; there is no mask: the padding takes part.

    Without its third encoder, T5, the pipeline takes zeros in its place.

    The guidance by skipped layers that was published with 3.5 Medium is not a part of this teacher.
    """

    pipeline = StableDiffusion3Pipeline
    optional = ("text_encoder_3", "tokenizer_3")
    lora_targets = (*FlowBackbone.lora_targets, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        config = pipe.transformer.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        path = rectified_flow(pipe.scheduler, (config.sample_size // config.patch_size) ** 2)
        return cls(pipe.transformer, path, "flow", shape, cls.encoded(pipe, prompts))

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        prompt, _, pooled, _ = pipe.encode_prompt(list(prompts), None, None, do_classifier_free_guidance=False)
        return {"prompt": prompt, "pooled": pooled}

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        return self.network(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=rows["prompt"],
            pooled_projections=rows["pooled"],
            return_dict=False,
        )[0]

    def tokens(self, output: Any) -> Tensor:
        tokens: Tensor = output[1]
        return tokens
