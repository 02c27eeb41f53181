"""SANA: a transformer with linear attention on latents of a deep-compression autoencoder, told a prompt by Gemma."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from diffusers import SanaPipeline
from torch import Tensor

from workers.models.flow_backbone import FlowBackbone
from workers.models.stock import rectified_flow


class Sana(FlowBackbone):
    """arXiv:2410.10629. Guidance leads away from the empty prompt.

    Prompts are encoded as they are, as the pipeline does it with `complex_human_instruction=None`. By default the
    pipeline puts an instruction to a language model before a prompt, though never before the empty one.
    """

    pipeline = SanaPipeline
    plain_arguments: ClassVar[dict[str, Any]] = {
        "guidance_scale": 1.0,
        "complex_human_instruction": None,
        "use_resolution_binning": False,
    }

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        config = pipe.transformer.config
        path = rectified_flow(pipe.scheduler, (config.sample_size // config.patch_size) ** 2)
        shape = (config.in_channels, config.sample_size, config.sample_size)
        return cls(pipe.transformer, path, "flow", shape, cls.encoded(pipe, prompts))

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        prompt, mask, _, _ = pipe.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return {"prompt": prompt, "mask": mask}

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        network: Any = self.network
        velocity: Tensor = network(
            x,
            encoder_hidden_states=rows["prompt"].to(x.dtype),
            encoder_attention_mask=rows["mask"],
            timestep=time * network.config.timestep_scale,
            return_dict=False,
        )[0]
        return velocity

    @property
    def width(self) -> int:
        config: Any = self.network.config
        return int(config.num_attention_heads * config.attention_head_dim)
