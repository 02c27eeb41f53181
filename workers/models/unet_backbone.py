"""Backbones that are diffusers' UNet2DConditionModel."""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from workers.models.backbone import Backbone
from workers.models.stock import variance_preserving


class UNetBackbone(Backbone):
    """Its features are those of the blocks on the way down and of the bottleneck: half of the network's cost."""

    part = "unet"

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        path, prediction = variance_preserving(pipe.scheduler)
        return cls(pipe.unet, path, prediction, cls.shape_of(pipe.unet), cls.encoded(pipe, prompts))

    @staticmethod
    def shape_of(unet: Any) -> tuple[int, ...]:
        """[C, H, W] of its latents at the size it was trained on."""
        size = unet.config.sample_size
        return (unet.config.in_channels, *((size, size) if isinstance(size, int) else size))

    def multiple(self) -> int | None:
        """Each block on the way down but the last halves the sides."""
        unet: Any = self.network
        return int(2 ** (len(unet.config.block_out_channels) - 1))

    def taps(self) -> list[nn.Module]:
        unet: Any = self.network
        return [*unet.down_blocks, unet.mid_block]

    def channels(self) -> tuple[int, ...]:
        unet: Any = self.network
        widths = unet.config.block_out_channels
        return (*widths, widths[-1])

    def feature(self, tap: Any, output: Any, x: Tensor) -> Tensor:
        """Of a block on the way down, what it gives before it halves the size."""
        if isinstance(output, Tensor):
            return output
        feature: Tensor = output[1][len(tap.resnets) - 1]
        return feature
