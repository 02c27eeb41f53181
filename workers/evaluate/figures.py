"""Quality figures as pure functions: features or images in, one number out, in float64.

Features are [N, D]; the distances compare generated images with held-out ones, never with those trained on.
"""

from collections.abc import Callable, Iterator

import torch
from torch.nn.functional import normalize

NEIGHBOURS = 3

ROWS = 4096
"""Rows of a matrix of pairs that are held at once."""

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
CLIP_SCALE = 100.0

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""[N, D] and [M, D] to [N, M]."""


def frechet_distance(features_A: torch.Tensor, features_B: torch.Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets, ‖μ−ν‖² + tr(Σ + Ω − 2(ΣΩ)^½) (arXiv:1706.08500, eq. 6)."""
    A, B = features_A.double(), features_B.double()
    root_A, root_B = covariance_root(A), covariance_root(B)
    cross = torch.linalg.matrix_norm(root_A @ root_B, "nuc")  # tr (ΣΩ)^½, exact for singular covariances as well
    spread = root_A.square().sum() + root_B.square().sum()
    return ((A.mean(0) - B.mean(0)).square().sum() + spread - 2 * cross).item()


def covariance_root(x: torch.Tensor) -> torch.Tensor:
    """The symmetric [D, D] square root of the covariance of [N, D]."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T).reshape(x.shape[1], x.shape[1]))
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def kernel_distance(
    features_A: torch.Tensor, labels_A: torch.Tensor, features_B: torch.Tensor, labels_B: torch.Tensor
) -> float:
    """Unbiased squared MMD with the kernel (x·y/D + 1)³ over all pairs (arXiv:1801.01401, eq. 4).

    Both sets are balanced by class, so pairs of one class are drawn too seldom among different images; they are
    weighted back to their share. Without that, equal sets come out below zero. Noise around zero may still do so.
    """
    A, B = features_A.double(), features_B.double()
    within = mean_within(A, labels_A) + mean_within(B, labels_B)
    return (within - 2 * mean_between(cubic, A, B)).item()


def cmmd(embeddings_A: torch.Tensor, embeddings_B: torch.Tensor) -> float:
    """1000 times the squared MMD of CLIP's image embeddings, brought to length 1, under exp(-‖x-y‖²/2σ²) with σ = 10.

    arXiv:2401.09603. The mean is over all pairs, each image with itself included, as in the authors' own code.
    """
    A, B = normalize(embeddings_A.double()), normalize(embeddings_B.double())
    within = mean_between(gaussian, A, A) + mean_between(gaussian, B, B)
    return CMMD_SCALE * (within - 2 * mean_between(gaussian, A, B)).item()


def clip_score(images: torch.Tensor, texts: torch.Tensor) -> float:
    """Mean of 100 max(cos, 0) of CLIP's embeddings [N, D] of images and of their prompts.

    arXiv:2104.08718 has 2.5 in the place of 100; the latter is what tables of text-to-image models show.
    """
    cosines = (normalize(images.double()) * normalize(texts.double())).sum(1)
    return CLIP_SCALE * cosines.clamp_min(0).mean().item()


def angle(features_A: torch.Tensor, features_B: torch.Tensor) -> float:
    """Mean of 1 - cos of the rows of [N, D] and [N, D], exactly 0 where they are the same."""
    A, B = normalize(features_A.double()), normalize(features_B.double())
    return ((A - B).square().sum(1) / 2).mean().item()


def root_mean_square(x: torch.Tensor, y: torch.Tensor) -> float:
    """Of the difference of two tensors of one shape."""
    return (x.double() - y.double()).square().mean().sqrt().item()


def cubic(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return (-squares.clamp_min(0) / (2 * CMMD_SIGMA**2)).exp()


def mean_between(kernel: Kernel, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean over all pairs of a row of [N, D] and one of [M, D]."""
    return torch.stack([kernel(x[rows], y).sum() for rows in blocks(x)]).sum() / (len(x) * len(y))


def mean_within(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Expected cubic kernel of two independent draws of a set stratified by class: never an image with itself."""
    one_hot = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1]).to(x)
    counts = one_hot.sum(0)
    sums, own = x.new_zeros(len(counts), len(counts)), []
    for rows in blocks(x):
        matrix = cubic(x[rows], x)
        sums += one_hot[rows].T @ matrix @ one_hot
        own.append(matrix.diagonal(rows.start))
    itself = torch.cat(own)
    if counts.min() < 2:  # a class of one image has no pairs of its own: the plain estimator
        return (sums.sum() - itself.sum()) / (len(x) * (len(x) - 1))
    pairs = torch.outer(counts, counts)
    within = (sums.diagonal() - itself @ one_hot) / (counts * (counts - 1))
    means = (sums / pairs).diagonal_scatter(within)
    return (pairs * means).sum() / pairs.sum()


def coverage(covering: torch.Tensor, covered: torch.Tensor, k: int = NEIGHBOURS) -> float:
    """Share of `covered` that lies within the k-th neighbour distance of some point of `covering` (arXiv:1904.06991).

    Precision is `coverage(real, generated)`, recall is `coverage(generated, real)`.
    """
    covering, covered = covering.double(), covered.double()
    radius = torch.cat(  # the first neighbour is the point itself
        [torch.cdist(covering[rows], covering).kthvalue(k + 1, dim=1).values for rows in blocks(covering)]
    )
    inside = [(torch.cdist(covered[rows], covering) <= radius).any(dim=1) for rows in blocks(covered)]
    return torch.cat(inside).double().mean().item()


def diversity(images: torch.Tensor, labels: torch.Tensor, real: torch.Tensor, real_labels: torch.Tensor) -> float:
    """Mean pixel distance between images of one class, divided by the real images' own; 1 is as varied as real."""
    return spread(images, labels) / spread(real, real_labels)


def spread(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean distance of two different images of one class, averaged over the classes that have at least two images."""
    distances = [
        mean_distance(images[labels == label].flatten(1).double())
        for label in labels.unique()
        if (labels == label).sum() > 1
    ]
    return torch.stack(distances).mean().item()


def mean_distance(x: torch.Tensor) -> torch.Tensor:
    """Of two different rows."""
    if len(x) <= ROWS:
        return torch.pdist(x).mean()
    return torch.stack([torch.cdist(x[rows], x).sum() for rows in blocks(x)]).sum() / (len(x) * (len(x) - 1))


def nearest_neighbour_ratio(images: torch.Tensor, held_out: torch.Tensor, trained_on: torch.Tensor) -> float:
    """Mean pixel distance to the nearest training image, divided by that of held-out images.

    0 is a copy of the training set, about 1 is as new as real images are, far above 1 is nothing like them.
    """
    return nearest(images, trained_on) / nearest(held_out, trained_on)


def nearest(images: torch.Tensor, others: torch.Tensor) -> float:
    x, y = images.flatten(1).double(), others.flatten(1).double()
    return torch.cat([torch.cdist(x[rows], y).min(dim=1).values for rows in blocks(x)]).mean().item()


def blocks(x: torch.Tensor) -> Iterator[slice]:
    """Slices of at most `ROWS` rows, which together are all of x."""
    return (slice(start, min(start + ROWS, len(x))) for start in range(0, len(x), ROWS))
