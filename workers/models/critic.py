"""Critics: how real a noised image looks, from the features of a denoiser."""

from torch import Tensor, nn

from workers.models.denoiser import Denoiser


class Critic(nn.Module):
    """A small head on a denoiser's features.

    The denoiser is no part of this module: it may be frozen, or trained by another loss as well.
    """

    def __init__(self, trunk: Denoiser) -> None:
        super().__init__()
        self._trunk = [trunk]  # in a list, so that it is not registered
        channels = trunk.feature_channels
        if len(trunk.shape) == 1:
            self.head = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))
        else:
            self.head = nn.Sequential(
                nn.Conv2d(channels, channels, 1), nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, 1, 1)
            )

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Logits [B, ...], one for each place of the features; the higher, the more real."""
        return self.head(self._trunk[0].features(x_t, t, labels))
