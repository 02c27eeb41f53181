"""Randomness as a function of (seed, stage, step, turn), the same on any number of workers.

Every worker draws the numbers of the whole batch from one generator and keeps its own share, so two workers see what
one would, and a resumed run sees what an unbroken one would: there is no generator state to save.
"""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


class BatchRng:
    """Draws for one forward and backward pass.

    Args:
        key: what the numbers are a function of: (seed, stage, step, turn), or fewer, the others being 0.
        batch_size: images of the whole batch, over all shares.
        share, shares: which part of the batch is drawn for; `batch_size` must be a multiple of `shares`.
    """

    def __init__(
        self, *key: int, batch_size: int, share: int = 0, shares: int = 1, device: torch.device | None = None
    ) -> None:
        self._generator = generator(key)
        self._seed, self._stage, self._step, self._turn = (*key, 0, 0, 0)[:4]
        self._share, self._shares, self._total, self.device = share, shares, batch_size, device
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

    def places(self, items: int) -> Tensor:
        """Which of `items` stored samples this share of the batch is made of: [size] int64 on the CPU.

        Step after step, each turn goes through all items in an order of its own, then again in another order: no item
        comes a second time before all have come once.
        """
        first = self._step * self._total
        position = self._mine(torch.arange(first, first + self._total))
        place, passes = position % items, position // items
        for number in passes.unique().tolist():
            now = passes == number
            place[now] = order((self._seed, self._stage, self._turn, number), items)[place[now]]
        return place


def generator(key: tuple[int | str, ...]) -> torch.Generator:
    """On the CPU, in a state that is a function of `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@lru_cache(maxsize=8)
def order(key: tuple[int, ...], items: int) -> Tensor:
    """All of 0 … items - 1, shuffled. Kept for the next steps: do not write to it."""
    return torch.randperm(items, generator=generator(("order", *key)))
