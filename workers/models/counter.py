"""How far training has come, for the methods that change on the way."""

import torch
from torch import Tensor, nn


class Counter(nn.Module):
    """Steps done, kept with a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def count(self) -> None:
        self.steps += 1

    def share(self, total: int) -> float:
        """Of `total` steps, in [0, 1]."""
        return int(self.steps) / total
