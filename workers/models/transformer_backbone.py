"""Backbones that are transformers over patches of the image."""

from typing import Any

from torch import Tensor, nn

from workers.models.backbone import Backbone

TAPS = 4


class TransformerBackbone(Backbone):
    """Its features are the image's tokens after up to `TAPS` of the first half of its blocks, evenly spaced."""

    def blocks(self) -> list[nn.Module]:
        """All blocks, in the order they run."""
        network: Any = self.network
        return list(network.transformer_blocks)

    @property
    def width(self) -> int:
        """Channels of a token."""
        network: Any = self.network
        return int(network.inner_dim)

    def multiple(self) -> int | None:
        """The side of a patch."""
        network: Any = self.network
        return int(network.config.patch_size)

    def taps(self) -> list[nn.Module]:
        blocks = self.blocks()
        half = max(1, len(blocks) // 2)
        return [blocks[i - 1] for i in sorted({-(-half * (k + 1) // TAPS) for k in range(TAPS)})]

    def channels(self) -> tuple[int, ...]:
        return (self.width,) * len(self.taps())

    def feature(self, tap: Any, output: Any, x: Tensor) -> Tensor:
        return as_image(self.tokens(output), x)

    def tokens(self, output: Any) -> Tensor:
        """The image's tokens [B, h w, C], row by row, in what a block gives."""
        tokens: Tensor = output
        return tokens


def as_image(tokens: Tensor, x: Tensor) -> Tensor:
    """Tokens [B, h w, C], row by row, as [B, C, h, w] with the proportions of x."""
    height, width = x.shape[-2:]
    patch = round((height * width / tokens.shape[1]) ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (height // patch, width // patch))
