"""Quality figures as pure functions: features or images in, one number out, in float64.

Features are [N, D]; the distances compare generated images with held-out ones, never with those trained on.
"""

import torch

NEIGHBOURS = 3


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
    within = mean_within(kernel(A, A), labels_A) + mean_within(kernel(B, B), labels_B)
    return (within - 2 * kernel(A, B).mean()).item()


def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The cubic kernel's [N, M] matrix of [N, D] and [M, D]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def mean_within(kernel_NN: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Expected kernel of two independent draws of a set stratified by class: never an image with itself."""
    one_hot = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1]).to(kernel_NN)
    counts = one_hot.sum(0)
    if counts.min() < 2:  # a class of one image has no pairs of its own: the plain estimator
        return (kernel_NN.sum() - kernel_NN.trace()) / (len(kernel_NN) * (len(kernel_NN) - 1))
    sums = one_hot.T @ kernel_NN @ one_hot
    pairs = torch.outer(counts, counts)
    diagonal = kernel_NN.diagonal() @ one_hot
    own = (sums.diagonal() - diagonal) / (counts * (counts - 1))
    means = (sums / pairs).diagonal_scatter(own)
    return (pairs * means).sum() / pairs.sum()


def coverage(covering: torch.Tensor, covered: torch.Tensor, k: int = NEIGHBOURS) -> float:
    """Share of `covered` that lies within the k-th neighbour distance of some point of `covering` (arXiv:1904.06991).

    Precision is `coverage(real, generated)`, recall is `coverage(generated, real)`.
    """
    covering, covered = covering.double(), covered.double()
    radius = torch.cdist(covering, covering).kthvalue(k + 1, dim=1).values  # the first neighbour is the point itself
    return (torch.cdist(covered, covering) <= radius).any(dim=1).double().mean().item()


def diversity(images: torch.Tensor, labels: torch.Tensor, real: torch.Tensor, real_labels: torch.Tensor) -> float:
    """Mean pixel distance between images of one class, divided by the real images' own; 1 is as varied as real."""
    return spread(images, labels) / spread(real, real_labels)


def spread(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean distance of two different images of one class, averaged over the classes that have at least two images."""
    distances = [
        torch.pdist(images[labels == label].flatten(1).double()).mean()
        for label in labels.unique()
        if (labels == label).sum() > 1
    ]
    return torch.stack(distances).mean().item()


def nearest_neighbour_ratio(images: torch.Tensor, held_out: torch.Tensor, trained_on: torch.Tensor) -> float:
    """Mean pixel distance to the nearest training image, divided by that of held-out images.

    0 is a copy of the training set, about 1 is as new as real images are, far above 1 is nothing like them.
    """
    return nearest(images, trained_on) / nearest(held_out, trained_on)


def nearest(images: torch.Tensor, others: torch.Tensor) -> float:
    return torch.cdist(images.flatten(1).double(), others.flatten(1).double()).min(dim=1).values.mean().item()
