"""Judge a sampler: generate a fixed, balanced set of images and compare it with images that it never saw.

A figure is comparable only with figures of the same evaluator and the same number of samples. Images are looked at as
they come; what is kept of each is its features and a thumbnail.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from service.observations import Figures
from workers.data.digits import IMAGE_SIZE, NUM_CLASSES, load_digits
from workers.evaluate import classifier as digit_classifier
from workers.evaluate import figures
from workers.evaluate.features import Clip, Features

BATCH = 250
"""Images per call of the sampler; `ms_per_image` holds for this batch."""

DIGITS_VERSION = 1
TEACHER_VERSION = 2
"""Raised with every change that moves a figure, so that kept figures are not compared across it."""

THUMBNAIL = 32
"""Longest side, in pixels, of what is kept of an image."""

LOOKED_AT = 2**24
"""Images are looked at together until they have so many values."""

Asked = Tensor | Sequence[str] | None
"""Labels int64 [B], or B prompts; None of a model without classes."""

Generate = Callable[[Asked, list[int], int], Tensor]
"""(what is asked for, one seed per image, sampling steps) -> images [B, C, H, W] in [-1, 1]."""

Keep = Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]
"""(key, make) -> what `make` gives, or gave before under that key."""


def image_seed(seed: int, index: int) -> int:
    """The seed of image `index`: the same for any batch and any number of workers, unlike any other index's.

    Below 2³² since torch's CPU generator looks at no more than that.
    """
    return (seed * 2_654_435_761 + index) % 2**32


def balanced_labels(samples: int, num_classes: int | None) -> Tensor | None:
    """Int64 labels 0, 1, 2, … with exactly as many images of each class; `samples` is rounded up to make it so."""
    if num_classes is None:
        return None
    return torch.arange(-(-samples // num_classes) * num_classes) % num_classes


def draw(generate: Generate, asked: Asked, steps: int, samples: int, seed: int, batch: int = BATCH) -> Iterator[Tensor]:
    """The set of images that is judged, [B, C, H, W] on the CPU at a time, clamped to [-1, 1] as a user gets them.

    There are as many as things `asked` for; `samples` of them without classes.
    """
    seeds = [image_seed(seed, i) for i in range(samples if asked is None else len(asked))]
    for i in range(0, len(seeds), batch):
        some = None if asked is None else asked[i : i + batch]
        yield generate(some, seeds[i : i + batch], steps).cpu().float().clamp(-1, 1)


@dataclass(frozen=True)
class Seen:
    """What is kept of N images: features [N, D], thumbnails [N, C, h, w], and the classes [N] that they are taken for,
    where something knows them."""

    features: Tensor
    thumbnails: Tensor
    classes: Tensor | None = None


@dataclass(frozen=True)
class Eye:
    """How images are looked at. `identity` names it; `logits` is None where nothing knows the classes."""

    identity: str
    features: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor] | None = None

    @torch.no_grad()
    def look(self, batches: Iterable[Tensor]) -> Seen:
        """At images [B, C, H, W] in [-1, 1] on the CPU, as they come."""
        parts = [self._look(images) for images in together(batches)]
        return Seen(
            torch.cat([part.features for part in parts]),
            torch.cat([part.thumbnails for part in parts]),
            None if self.logits is None else torch.cat([part.classes for part in parts if part.classes is not None]),
        )

    def _look(self, images: Tensor) -> Seen:
        classes = None if self.logits is None else self.logits(images).argmax(1)
        return Seen(self.features(images), averaged(images, THUMBNAIL), classes)


def together(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same images in larger batches, up to about `LOOKED_AT` values."""
    waiting: list[Tensor] = []
    for images in batches:
        waiting.append(images)
        if sum(x.numel() for x in waiting) >= LOOKED_AT:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


@dataclass(frozen=True)
class Evaluator:
    """Held-out images to compare with, thumbnails of training images to catch copies of, and how images are looked at.

    `identity` names all of that and the definitions.
    """

    identity: str
    num_classes: int | None
    eye: Eye
    held_out: Seen
    held_out_labels: Tensor
    trained_on: Tensor
    batch: int = BATCH

    def figures(self, generate: Generate, steps: int, samples: int, seed: int = 0) -> Figures:
        """Generate `samples` images, the same number of each class, and judge them. About a second beside sampling."""
        seconds = 0.0

        def timed(asked: Asked, seeds: list[int], steps: int) -> Tensor:
            nonlocal seconds
            started = time.perf_counter()
            images = generate(asked, seeds, steps).cpu()
            seconds += time.perf_counter() - started
            return images

        labels = balanced_labels(samples, self.num_classes)
        seen = self.eye.look(draw(timed, labels, steps, samples, seed, self.batch))
        return self.compare(seen, labels, 1000 * seconds / len(seen.features))

    def judge(self, images: Tensor, labels: Tensor | None, ms_per_image: float) -> Figures:
        """The figures of `images` [N, C, H, W] in [-1, 1] that were asked for as `labels` [N], None without classes."""
        return self.compare(self.eye.look([images]), labels, ms_per_image)

    def compare(self, seen: Seen, labels: Tensor | None, ms_per_image: float) -> Figures:
        """The figures of images of which no more is left."""
        real, fake = self.held_out.features, seen.features
        accuracy = None
        if seen.classes is not None and labels is not None:
            accuracy = (seen.classes == labels).double().mean().item()
        real_labels = self.held_out_labels
        if labels is None:  # one class of everything
            labels, real_labels = torch.zeros(len(fake), dtype=torch.int64), torch.zeros_like(real_labels)
        thumbnails, real_thumbnails = seen.thumbnails, self.held_out.thumbnails
        return Figures(
            frechet=figures.frechet_distance(fake, real),
            kernel=figures.kernel_distance(fake, labels, real, real_labels),
            accuracy=accuracy,
            precision=figures.coverage(real, fake),
            recall=figures.coverage(fake, real),
            diversity=figures.diversity(thumbnails, labels, real_thumbnails, real_labels),
            nearest_neighbour_ratio=figures.nearest_neighbour_ratio(thumbnails, real_thumbnails, self.trained_on),
            ms_per_image=ms_per_image,
            cmmd=figures.cmmd(fake, real) if isinstance(self.eye.features, Clip) else None,
        )


def judges_digits(image_size: tuple[int, ...], num_classes: int | None) -> bool:
    """Whether a teacher of this shape is taken for one of the digits."""
    return image_size == IMAGE_SIZE and num_classes in (None, NUM_CLASSES)


def digits_evaluator(
    num_classes: int | None = NUM_CLASSES,
    classifier: Path = digit_classifier.ASSET,
    features: Features | None = None,
) -> Evaluator:
    """Against the held-out digits, in the given features or those of a classifier trained on the training part."""
    digits, judge = load_digits(), digit_classifier.load_classifier(classifier)
    weights = hashlib.sha256(classifier.read_bytes()).hexdigest()[:12]
    identity = f"digits-v{DIGITS_VERSION}-{weights}" + (f"-{features.identity}" if features else "")
    eye = Eye(identity, features or judge.features, judge)
    return Evaluator(
        identity=identity,
        num_classes=num_classes,
        eye=eye,
        held_out=eye.look([digits.test_images]),
        held_out_labels=digits.test_labels,
        trained_on=digits.train_images,
    )


def made(key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Kept nowhere."""
    return make()


def teacher_evaluator(
    teacher: Generate,
    num_classes: int | None,
    steps: int,
    samples: int,
    batch: int = BATCH,
    features: Features | None = None,
    keep: Keep = made,
) -> Evaluator:
    """For a teacher whose training data is not at hand: against its own samples, in the given features or in pixels
    averaged down to 8×8.

    Figures then say how far a student is from its teacher, not from the data, and accuracy is None. Half of the samples
    stand for held-out images and the other half for training images; `keep` may have kept what was seen of them.
    """
    eye = Eye(features.identity if features else "pixels", features or small_pixels)
    labels = balanced_labels(samples, num_classes)

    def reference() -> dict[str, Tensor]:
        held_out = eye.look(draw(teacher, labels, steps, samples, 1, batch))
        others = draw(teacher, labels, steps, samples, 2, batch)
        trained_on = torch.cat([averaged(images, THUMBNAIL) for images in others])
        return {"features": held_out.features, "thumbnails": held_out.thumbnails, "trained_on": trained_on}

    identity = f"teacher-v{TEACHER_VERSION}-{steps}" + (f"-{features.identity}" if features else "")
    kept = keep(f"{identity} samples={samples} classes={num_classes}", reference)
    return Evaluator(
        identity=identity,
        num_classes=num_classes,
        eye=eye,
        held_out=Seen(kept["features"], kept["thumbnails"]),
        held_out_labels=torch.zeros(len(kept["features"]), dtype=torch.int64) if labels is None else labels,
        trained_on=kept["trained_on"],
        batch=batch,
    )


def small_pixels(images: Tensor) -> Tensor:
    """[N, C·H·W] pixels of images at most 8 by 8, larger ones averaged down."""
    return averaged(images, 8).flatten(1)


def averaged(images: Tensor, side: int) -> Tensor:
    """[N, C, h, w] of [N, C, H, W], larger ones averaged down to at most `side` along each side."""
    height, width = images.shape[-2:]
    return functional.adaptive_avg_pool2d(images, (min(height, side), min(width, side))).contiguous()
