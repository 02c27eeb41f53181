"""Critics: how real a noised image looks, from the features of a denoiser."""

import torch
from torch import Tensor, nn

from workers.models.denoiser import Denoiser


class FeatureMean(nn.Module):
    """The mean over the channels of a denoiser's features: a critic without parameters of its own (arXiv:2410.14919).

    As with `Critic`, the denoiser is no part of this module.
    """

    def __init__(self, trunk: Denoiser) -> None:
        super().__init__()
        self._trunk = [trunk]  # in a list, so that it is not registered

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Logits [B, 1, ...], one for each place of the features; the higher, the more real."""
        return self._trunk[0].features(x_t, t, labels)[-1].mean(1, keepdim=True)


class Critic(nn.Module):
    """A small head on the last of a denoiser's features.

    The denoiser is no part of this module: it may be frozen, or trained by another loss as well.
    """

    def __init__(self, trunk: Denoiser) -> None:
        super().__init__()
        self._trunk = [trunk]  # in a list, so that it is not registered
        channels = trunk.feature_channels[-1]
        if len(trunk.shape) == 1:
            self.head = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))
        else:
            self.head = nn.Sequential(
                nn.Conv2d(channels, channels, 1), nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, 1, 1)
            )

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Logits [B, ...], one for each place of the features; the higher, the more real."""
        return self.head(self._trunk[0].features(x_t, t, labels)[-1])


class Head(nn.Module):
    """Logits [B, places] of features [B, channels, ...], told one of `conditions`, all alike at first."""

    def __init__(self, channels: int, conditions: int, flat: bool) -> None:
        super().__init__()
        self.first = nn.Linear(channels, channels) if flat else nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.Identity() if flat else nn.GroupNorm(8, channels)
        self.condition = nn.Embedding(conditions, channels)
        # No bias: at first the hinge's gradient in it is 0, and Adam would take full steps along what rounding leaves.
        self.last = nn.Linear(channels, 1, bias=False) if flat else nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.condition.weight)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        h = self.norm(self.first(features))
        h = h + self.condition(condition).reshape(*h.shape[:2], *[1] * (h.ndim - 2))
        return self.last(nn.functional.silu(h)).flatten(1)


class BlockCritic(nn.Module):
    """A head on each of a denoiser's features, told which of the student's steps made a sample.

    Args:
        trunk: the denoiser; no part of this module unless it is to be `trained` with the heads.
        looks: how many noised images the heads see side by side.
    """

    def __init__(self, trunk: Denoiser, conditions: int, trained: bool = False, looks: int = 1) -> None:
        super().__init__()
        self._trunk = [trunk]
        if trained:
            self.trunk = trunk
        flat = len(trunk.shape) == 1
        self.heads = nn.ModuleList([Head(looks * channels, conditions, flat) for channels in trunk.feature_channels])

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None, condition: Tensor) -> Tensor:
        """Logits [B, places of all features]; the higher, the more real."""
        return self.judge(self._trunk[0].features(x_t, t, labels), condition)

    def judge(self, features: list[Tensor], condition: Tensor) -> Tensor:
        return torch.cat([head(h, condition) for head, h in zip(self.heads, features, strict=True)], dim=1)


class StepCritic(BlockCritic):
    """Of a step: sees the image it led to, and beside it the image it came from, or nothing (arXiv:2402.13929)."""

    def __init__(self, trunk: Denoiser, conditions: int) -> None:
        super().__init__(trunk, conditions, trained=True, looks=2)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        labels: Tensor | None,
        condition: Tensor,
        x_before: Tensor | None = None,
        t_before: Tensor | None = None,
    ) -> Tensor:
        after = self.trunk.features(x_t, t, labels)
        if x_before is None or t_before is None:
            before = [torch.zeros_like(h) for h in after]
        else:
            before = self.trunk.features(x_before, t_before, labels)
        return self.judge([torch.cat(pair, dim=1) for pair in zip(after, before, strict=True)], condition)
