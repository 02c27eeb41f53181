"""Judge a sampler: generate a fixed, balanced set of images and compare it with images that it never saw.

A figure is comparable only with figures of the same evaluator and the same number of samples.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from service.observations import Figures
from workers.data.digits import IMAGE_SIZE, NUM_CLASSES, load_digits
from workers.evaluate import classifier as digit_classifier
from workers.evaluate import figures

BATCH = 250
"""Images per call of the sampler; `ms_per_image` holds for this batch."""

VERSION = 1
"""Raised with every change that moves a figure, so that kept figures are not compared across it."""

Generate = Callable[[torch.Tensor | None, list[int], int], torch.Tensor]
"""(labels int64 [B] or None, one seed per image, sampling steps) -> images [B, C, H, W] in [-1, 1]."""


def image_seed(seed: int, index: int) -> int:
    """The seed of image `index`: the same for any batch and any number of workers, unlike any other index's.

    Below 2³² since torch's CPU generator looks at no more than that.
    """
    return (seed * 2_654_435_761 + index) % 2**32


def balanced_labels(samples: int, num_classes: int | None) -> torch.Tensor | None:
    """Int64 labels 0, 1, 2, … with exactly as many images of each class; `samples` is rounded up to make it so."""
    if num_classes is None:
        return None
    return torch.arange(-(-samples // num_classes) * num_classes) % num_classes


def draw(
    generate: Generate, num_classes: int | None, steps: int, samples: int, seed: int, batch: int = BATCH
) -> torch.Tensor:
    """The set of images that is judged, [N, C, H, W] on the CPU, clamped to [-1, 1] as a user gets them."""
    labels = balanced_labels(samples, num_classes)
    seeds = [image_seed(seed, i) for i in range(samples if labels is None else len(labels))]
    parts = []
    for i in range(0, len(seeds), batch):
        parts.append(generate(None if labels is None else labels[i : i + batch], seeds[i : i + batch], steps).cpu())
    return torch.cat(parts).float().clamp(-1, 1)


@dataclass(frozen=True)
class Evaluator:
    """Held-out images to compare with, training images to catch copies of, and the features to compare in.

    `identity` names all of that and the definitions. `logits` is None where nothing knows the classes.
    """

    identity: str
    num_classes: int | None
    held_out: torch.Tensor
    held_out_labels: torch.Tensor
    trained_on: torch.Tensor
    features: Callable[[torch.Tensor], torch.Tensor]
    logits: Callable[[torch.Tensor], torch.Tensor] | None
    batch: int = BATCH

    def figures(self, generate: Generate, steps: int, samples: int, seed: int = 0) -> Figures:
        """Generate `samples` images, the same number of each class, and judge them. About a second beside sampling."""
        started = time.perf_counter()
        images = draw(generate, self.num_classes, steps, samples, seed, self.batch)
        milliseconds = 1000 * (time.perf_counter() - started) / len(images)
        return self.judge(images, balanced_labels(samples, self.num_classes), milliseconds)

    @torch.no_grad()
    def judge(self, images: torch.Tensor, labels: torch.Tensor | None, ms_per_image: float) -> Figures:
        """The figures of `images` [N, C, H, W] in [-1, 1] that were asked for as `labels` [N], None without classes."""
        real, fake = self.features(self.held_out), self.features(images)
        accuracy = None
        if self.logits is not None and labels is not None:
            accuracy = (self.logits(images).argmax(1) == labels).double().mean().item()
        real_labels = self.held_out_labels
        if labels is None:  # one class of everything
            labels, real_labels = torch.zeros(len(images), dtype=torch.int64), torch.zeros_like(real_labels)
        return Figures(
            frechet=figures.frechet_distance(fake, real),
            kernel=figures.kernel_distance(fake, labels, real, real_labels),
            accuracy=accuracy,
            precision=figures.coverage(real, fake),
            recall=figures.coverage(fake, real),
            diversity=figures.diversity(images, labels, self.held_out, real_labels),
            nearest_neighbour_ratio=figures.nearest_neighbour_ratio(images, self.held_out, self.trained_on),
            ms_per_image=ms_per_image,
        )


def judges_digits(image_size: tuple[int, ...], num_classes: int | None) -> bool:
    """Whether a teacher of this shape is taken for one of the digits."""
    return image_size == IMAGE_SIZE and num_classes in (None, NUM_CLASSES)


def digits_evaluator(num_classes: int | None = NUM_CLASSES, classifier: Path = digit_classifier.ASSET) -> Evaluator:
    """Against the held-out digits, in the features of a classifier trained on the training part."""
    digits, judge = load_digits(), digit_classifier.load_classifier(classifier)
    weights = hashlib.sha256(classifier.read_bytes()).hexdigest()[:12]
    return Evaluator(
        identity=f"digits-v{VERSION}-{weights}",
        num_classes=num_classes,
        held_out=digits.test_images,
        held_out_labels=digits.test_labels,
        trained_on=digits.train_images,
        features=judge.features,
        logits=judge,
    )


def teacher_evaluator(
    teacher: Generate, num_classes: int | None, steps: int, samples: int, batch: int = BATCH
) -> Evaluator:
    """For a teacher whose training data is not at hand: against its own samples, in pixels averaged down to 8×8.

    Figures then say how far a student is from its teacher, not from the data, and accuracy is None. Half of the samples
    stand for held-out images and the other half for training images.
    """
    held_out = draw(teacher, num_classes, steps, samples, 1, batch)
    labels = balanced_labels(samples, num_classes)
    return Evaluator(
        identity=f"teacher-v{VERSION}-{steps}",
        num_classes=num_classes,
        held_out=held_out,
        held_out_labels=torch.zeros(len(held_out), dtype=torch.int64) if labels is None else labels,
        trained_on=draw(teacher, num_classes, steps, samples, 2, batch),
        features=small_pixels,
        logits=None,
        batch=batch,
    )


def small_pixels(images: torch.Tensor) -> torch.Tensor:
    """[N, C·H·W] pixels of images at most 8 by 8, larger ones averaged down."""
    height, width = images.shape[-2:]
    return functional.adaptive_avg_pool2d(images, (min(height, 8), min(width, 8))).flatten(1)
