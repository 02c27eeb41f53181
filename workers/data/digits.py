"""Scikit-learn's handwritten digits: 1,797 grey 8×8 images of ten classes, split once and for all.

Teacher, students and the evaluator's features see the training part alone; distances are to the held-out part.
"""

from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits as load_bundled
from sklearn.model_selection import train_test_split

IMAGE_SIZE = (1, 8, 8)
NUM_CLASSES = 10


@dataclass(frozen=True)
class Digits:
    """Images are float32 [N, 1, 8, 8] in [-1, 1], labels int64 [N] in 0..9."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


@cache
def load_digits() -> Digits:
    """The 1,257 training and 540 held-out images, the same share of each class in both. Needs no network.

    The tensors are shared between callers: do not write to them.
    """
    bundled = load_bundled()
    images_NHW = bundled.images / 8.0 - 1.0  # the data set counts ink from 0 to 16
    parts = train_test_split(images_NHW, bundled.target, test_size=0.3, random_state=0, stratify=bundled.target)
    train_images, test_images = (torch.tensor(part, dtype=torch.float32).unsqueeze(1) for part in parts[:2])
    train_labels, test_labels = (torch.tensor(part, dtype=torch.int64) for part in parts[2:])
    return Digits(train_images, train_labels, test_images, test_labels)
