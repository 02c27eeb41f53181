"""PixArt-Sigma: a transformer on a VAE's latents that attends to the tokens of a prompt, by T5."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from diffusers import PixArtSigmaPipeline
from torch import Tensor

from workers.models.stock import variance_preserving
from workers.models.transformer_backbone import TransformerBackbone


class PixArtSigma(TransformerBackbone):
    """arXiv:2403.04692. Guidance leads away from the empty prompt, of which only the end token is attended to.

    Half of the output channels are a learned variance, which no deterministic sampler asks for.
    """

    pipeline = PixArtSigmaPipeline
    plain_arguments: ClassVar[dict[str, Any]] = {"guidance_scale": 1.0, "use_resolution_binning": False}

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        network = pipe.transformer
        path, prediction = variance_preserving(pipe.scheduler)
        shape = (network.config.in_channels, *(network.config.sample_size,) * 2)
        return cls(network, path, prediction, shape, cls.encoded(pipe, prompts))

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Prompts are in lower case and, where bs4 and ftfy are installed, cleaned: the default of the pipeline's call,
        not of its encode_prompt."""
        prompt, mask, _, _ = pipe.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, device=pipe.device, clean_caption=True
        )
        return {"prompt": prompt, "mask": mask}

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        out: Tensor = self.network(
            x,
            encoder_hidden_states=rows["prompt"],
            timestep=time,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            encoder_attention_mask=rows["mask"],
            return_dict=False,
        )[0]
        return out[:, : self.shape[0]]
