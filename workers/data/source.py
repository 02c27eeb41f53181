"""Where training images come from."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from workers.data.chunks import Chunks
from workers.randomness import BatchRng


@dataclass(frozen=True)
class Batch:
    """Images [B, C, H, W] in [-1, 1], or latents, and their classes [B], None for an unconditional teacher.

    `noise`, like the images: what the teacher made them from, where they are its own.
    """

    images: Tensor
    labels: Tensor | None
    noise: Tensor | None = None


class Source(Protocol):
    def batch(self, rng: BatchRng) -> Batch:
        """This share of the batch of the step that `rng` stands for."""


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


@dataclass(frozen=True)
class PairSource:
    """Pairs in files, with their noises, drawn as an `ImageSource` draws."""

    chunks: Chunks

    def batch(self, rng: BatchRng) -> Batch:
        pick = (rng.uniform() * len(self.chunks)).long()
        rows = {name: rows.to(rng.device) for name, rows in self.chunks.rows(pick, self.chunks.names).items()}
        return Batch(rows["images"], rows.get("labels"), rows["noise"])


@dataclass(frozen=True)
class StoredSource:
    """Images in files: each pass sees every one once, in an order and at a place that the step alone decides.

    Those of a batch are of one size.

    Args:
        captions: whether labels are the samples' own numbers, for which `workers.models.conditions` has a row each.
    """

    chunks: Chunks
    captions: bool

    def batch(self, rng: BatchRng) -> Batch:
        places = rng.places(tuple(self.chunks.sizes.values()))
        rows = self.chunks.rows(places, [name for name in ("images", "labels") if name in self.chunks.names])
        labels = places if self.captions else rows.get("labels")
        return Batch(rows["images"].to(rng.device), None if labels is None else labels.to(rng.device))
