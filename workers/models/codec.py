"""Between images and the latents that a network sees."""

from typing import Any, Protocol

import torch
from torch import Tensor

AT_ONCE = 1024**2
"""Pixels that go through a VAE at once, which is wide: as many as a large image has."""


class Coder(Protocol):
    """What gives latents of images [B, 3, H, W] in [-1, 1], and images of latents."""

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


class Codec:
    """The VAE of a pipeline, with the pipeline's scaling: latents = (what the VAE gives - shift) * scale.

    Where the VAE's config has them, `latents_mean` and `latents_std`, one number per channel, take the place of the
    shift and join the scale. Images are [B, 3, H, W] in [-1, 1].
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        config = vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            self.shift, spread = _per_channel(mean), _per_channel(std)
        else:
            self.shift, spread = torch.tensor(config.get("shift_factor") or 0.0), torch.tensor(1.0)
        self.scale = config.scaling_factor / spread

    @property
    def factor(self) -> int:
        """Pixels to a latent, along a side."""
        config = self.vae.config
        return int(2 ** (len(config.get("block_out_channels") or config.encoder_block_out_channels) - 1))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents [B, C, h, w]; of a VAE that gives a distribution, its mode."""
        pixels = images.shape[-2] * images.shape[-1]
        parts = [self.vae.encode(part) for part in images.to(self.vae.dtype).split(max(1, AT_ONCE // pixels))]
        found = [part.latent_dist.mode() if hasattr(part, "latent_dist") else part.latent for part in parts]
        latents = torch.cat(found)
        return (latents.float() - self.shift.to(latents.device)) * self.scale.to(latents.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images, clipped."""
        there = latents / self.scale.to(latents.device) + self.shift.to(latents.device)
        pixels = self.factor**2 * latents.shape[-2] * latents.shape[-1]
        parts = there.to(self.vae.dtype).split(max(1, AT_ONCE // pixels))
        images = torch.cat([self.vae.decode(part, return_dict=False)[0] for part in parts])
        return images.float().clamp(-1, 1)


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)
