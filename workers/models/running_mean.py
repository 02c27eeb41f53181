"""A mean over steps and workers, of a quantity that depends on the noise level."""

import torch
from torch import Tensor, nn

from workers.optim import average_over_workers

BINS = 10
DECAY = 0.9


class RunningMean(nn.Module):
    """Of a quantity about 1, in tenths of the times [0, 1]. A follower: a step sees the mean of the steps before it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.ones(BINS, dtype=torch.float64))
        self._seen: list[Tensor] = []

    def _bin(self, t: Tensor) -> Tensor:
        return (t * BINS).long().clamp(0, BINS - 1)

    def forward(self, t: Tensor) -> Tensor:
        """The mean [B] at the times t [B]."""
        return self.mean[self._bin(t)]

    def watch(self, values: Tensor, t: Tensor) -> None:
        """Note `values` [B] at the times t [B]."""
        values = values.detach().double()
        sums = torch.zeros(2, BINS, dtype=torch.float64, device=values.device)
        sums.index_add_(1, self._bin(t).to(values.device), torch.stack([values, torch.ones_like(values)]))
        self._seen.append(sums)

    def after_step(self) -> None:
        """Move towards what was seen; on all workers alike."""
        if not self._seen:
            return
        sums = torch.stack(self._seen).sum(0)
        average_over_workers([sums])
        total, count = sums.cpu()
        self.mean.lerp_(torch.where(count > 0, total / count.clamp(min=1e-9), self.mean), 1 - DECAY)
        self._seen.clear()
