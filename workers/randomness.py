"""Randomness as a function of (seed, stage, step, turn), the same on any number of workers.

Every worker draws the numbers of the whole batch from one generator and keeps its own share, so two workers see what
one would, and a resumed run sees what an unbroken one would: there is no generator state to save.
"""

import hashlib

import torch
from torch import Tensor


class BatchRng:
    """Draws for one forward and backward pass.

    Args:
        key: what the numbers are a function of, for example (seed, stage, step, turn).
        batch_size: images of the whole batch, over all shares.
        share, shares: which part of the batch is drawn for; `batch_size` must be a multiple of `shares`.
    """

    def __init__(
        self, *key: int, batch_size: int, share: int = 0, shares: int = 1, device: torch.device | None = None
    ) -> None:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        self._share, self._shares, self.device = share, shares, device
        self.size = batch_size // shares
        """Images of this share."""

    def _mine(self, everyone: Tensor) -> Tensor:
        return everyone.tensor_split(self._shares)[self._share]

    def normal(self, shape: tuple[int, ...], rows: int | None = None) -> Tensor:
        """N(0, 1), [rows, *shape] on the device; `rows` of this share, by default its whole size."""
        rows = self.size if rows is None else rows
        return self._mine(torch.randn(rows * self._shares, *shape, generator=self._generator)).to(self.device)

    def uniform(self, rows: int | None = None) -> Tensor:
        """Stratified over the whole batch: [rows] float64 on the CPU, one draw in each of B equal parts of [0, 1)."""
        total = (self.size if rows is None else rows) * self._shares
        order = torch.randperm(total, generator=self._generator)
        jitter = torch.rand(total, generator=self._generator, dtype=torch.float64)
        return self._mine((order + jitter) / total)

    def integers(self, high: int, rows: int | None = None) -> Tensor:
        """Independent, uniform in [0, high): [rows] int64 on the CPU."""
        rows = self.size if rows is None else rows
        return self._mine(torch.randint(high, (rows * self._shares,), generator=self._generator))

    def shared_integer(self, high: int) -> int:
        """One number in [0, high), the same for every share."""
        return int(torch.randint(high, (), generator=self._generator))
