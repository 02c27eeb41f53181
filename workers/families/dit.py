"""Diffusion transformers (DiT): on a VAE's latents, told a class of ImageNet."""

from collections.abc import Sequence
from typing import Any, Self

from diffusers import DiTPipeline
from torch import Tensor

from workers.models.stock import variance_preserving
from workers.models.transformer_backbone import TransformerBackbone


class DiT(TransformerBackbone):
    """arXiv:2212.09748. Labels are the classes themselves; guidance leads away from the class after the last.

    Half of the output channels are a learned variance, which no deterministic sampler asks for. In training mode the
    network would drop labels of itself.
    """

    pipeline = DiTPipeline

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        """Prompts are not looked at: label i is class i of the network."""
        network = pipe.transformer
        path, prediction = variance_preserving(pipe.scheduler)
        shape = (network.config.in_channels, *(network.config.sample_size,) * 2)
        return cls(network, path, prediction, shape, None, network.config.num_embeds_ada_norm)

    @classmethod
    def plain(cls, pipe: Any, asked: list[Any], generators: list[Any], steps: int, size: tuple[int, ...]) -> Tensor:
        """Of classes; the pipeline knows its size."""
        images: Tensor = pipe(
            asked, guidance_scale=1.0, generator=generators, num_inference_steps=steps, output_type="pt"
        ).images
        return images * 2 - 1

    def multiple(self) -> int | None:
        """None: it was trained at one size, the only one that its pipeline knows."""
        return None

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        out: Tensor = self.network(x, timestep=time, class_labels=rows["labels"], return_dict=False)[0]
        return out[:, : self.shape[0]]
