"""Z-Image: one stream of image and prompt tokens through a transformer, told a prompt by Qwen3's chat."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from diffusers import ZImagePipeline
from torch import Tensor, nn
from torch.nn.functional import pad

from workers.models.flow_backbone import FlowBackbone
from workers.models.stock import rectified_flow
from workers.models.transformer_backbone import as_image

LENGTH = 512
PATCH = 2


class ZImage(FlowBackbone):
    """arXiv:2511.22699. Guidance leads away from the empty prompt, which is a chat like any other.

    The network's time is 0 at the noise and 1 at the image, and it gives x0 - eps. The pipeline guides by
    c + g (c - u), so its guidance_scale is one less than ours, and 0 is off. The network has no size of its own: images
    have the autoencoder's.
    """

    pipeline = ZImagePipeline
    plain_arguments: ClassVar[dict[str, Any]] = {"guidance_scale": 0.0}

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        side = PATCH * (pipe.vae.config.sample_size // (PATCH * pipe.vae_scale_factor))
        path = rectified_flow(pipe.scheduler, (side // PATCH) ** 2)
        shape = (pipe.transformer.config.in_channels, side, side)
        return cls(pipe.transformer, path, "flow", shape, cls.encoded(pipe, prompts))

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The pipeline cuts each prompt to its own length; here zeros follow, and `length` says where."""
        found, _ = pipe.encode_prompt(list(prompts), do_classifier_free_guidance=False, max_sequence_length=LENGTH)
        padded = torch.stack([pad(prompt, (0, 0, 0, LENGTH - len(prompt))) for prompt in found])
        return {"prompt": padded, "length": torch.tensor([len(prompt) for prompt in found], device=padded.device)}

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        """Each image and each prompt by itself: the network pads a prompt to a multiple of 32 tokens, and the places of
        the image's tokens are counted from there."""
        prompts = zip(rows["prompt"].to(x.dtype), rows["length"].tolist(), strict=True)
        captions = [prompt[:length] for prompt, length in prompts]
        out = self.network(list(x.unsqueeze(2)), (1000 - time) / 1000, captions, return_dict=False)[0]
        return -torch.stack(out).squeeze(2)

    def multiple(self) -> int | None:
        return PATCH

    def blocks(self) -> list[nn.Module]:
        """Without those that refine the prompt alone."""
        network: Any = self.network
        return [*network.noise_refiner, *network.layers]

    @property
    def width(self) -> int:
        config: Any = self.network.config
        return int(config.dim)

    def feature(self, tap: Any, output: Any, x: Tensor) -> Tensor:
        """The image's tokens come first, then padding and the prompt."""
        return as_image(output[:, : x.shape[-2] * x.shape[-1] // PATCH**2], x)
