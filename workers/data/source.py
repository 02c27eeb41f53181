"""Where training images come from."""

from dataclasses import dataclass

from torch import Tensor

from workers.randomness import BatchRng


@dataclass(frozen=True)
class Batch:
    """Images [B, C, H, W] in [-1, 1] and their classes [B], None for an unconditional teacher.

    `noise`, like the images: what the teacher made them from, where they are its own.
    """

    images: Tensor
    labels: Tensor | None
    noise: Tensor | None = None


@dataclass(frozen=True)
class ImageSource:
    """Images that fit into memory, drawn with replacement, evenly from the whole set."""

    images: Tensor
    labels: Tensor | None
    noise: Tensor | None = None

    def batch(self, rng: BatchRng) -> Batch:
        pick = (rng.uniform() * len(self.images)).long()
        labels = None if self.labels is None else self.labels[pick].to(rng.device)
        noise = None if self.noise is None else self.noise[pick].to(rng.device)
        return Batch(self.images[pick].to(rng.device), labels, noise)
