"""Randomness as a function of (seed, stage, step, turn), the same on any number of workers.

Every worker draws the numbers of the whole batch from one generator and keeps its own share, so two workers see what
one would, and a resumed run sees what an unbroken one would: there is no generator state to save.
"""

import hashlib
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

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

    def normal_like(self, x: Tensor) -> Tensor:
        """N(0, 1) of the shape of x [rows, ...]."""
        return self.normal(tuple(x.shape[1:]), len(x))

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

    def places(self, groups: tuple[int, ...]) -> Tensor:
        """Which stored samples this share of the batch is made of: [size] int64 on the CPU, all of one group.

        Step after step, each turn goes through all samples in an order of its own, then again in another order: none
        comes a second time before all of its group have come once. Where a group's last batch of a pass is not full,
        the group's next pass begins in it.

        Args:
            groups: samples of each; the places of a group follow those of the group before.
        """
        key = (self._seed, self._stage, self._turn)
        group, batches = whose_turn(key, self._step, self._total, groups)
        first, samples = batches * self._total, groups[group]
        position = self._mine(torch.arange(first, first + self._total))
        place, passes = position % samples, position // samples
        for number in passes.unique().tolist():
            now = passes == number
            place[now] = order((*key, number), groups)[sum(groups[:group]) + place[now]]
        return place


def generator(key: tuple[int | str, ...]) -> torch.Generator:
    """On the CPU, in a state that is a function of `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@lru_cache(maxsize=8)
def order(key: tuple[int, ...], groups: tuple[int, ...]) -> Tensor:
    """All places, shuffled within each group. Kept for the next steps: do not write to it."""
    rng, starts = generator(("order", *key)), accumulate(groups, initial=0)
    return torch.cat([start + torch.randperm(n, generator=rng) for start, n in zip(starts, groups, strict=False)])


def whose_turn(key: tuple[int, ...], step: int, batch_size: int, groups: tuple[int, ...]) -> tuple[int, int]:
    """The group that the batch of `step` is of, and how many batches of that group came before it.

    In a pass each group has as many turns as its samples fill batches, less what the pass before took of them.
    """
    if len(groups) == 1:
        return 0, step

    def batches(passes: int) -> list[int]:
        """Of each group, to go through all of it so many times."""
        return [-(-passes * samples // batch_size) for samples in groups]

    begun = range(step * batch_size // sum(groups) + 2)
    number = bisect_right(begun, step, key=lambda passes: sum(batches(passes))) - 1
    before, after = batches(number), batches(number + 1)
    turns = turns_of((*key, number), tuple(last - first for first, last in zip(before, after, strict=True)))
    position = step - sum(before)
    group = int(turns[position])
    return group, before[group] + int((turns[:position] == group).sum())


@lru_cache(maxsize=8)
def turns_of(key: tuple[int, ...], batches: tuple[int, ...]) -> Tensor:
    """The groups of a pass's batches, shuffled. Kept as `order` is."""
    turns = torch.repeat_interleave(torch.arange(len(batches)), torch.tensor(batches))
    return turns[torch.randperm(len(turns), generator=generator(("turns", *key)))]
