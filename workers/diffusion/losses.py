"""Parts that losses are made of. Each reduces to one number per sample [B] unless it says otherwise."""

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.diffusion.paths import Path, expand


def per_sample(x: Tensor) -> Tensor:
    """Mean over everything but the batch."""
    return x.flatten(1).mean(1)


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error."""
    return per_sample((a - b) ** 2)


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """sqrt(|a - b|^2 + c^2) - c (arXiv:2310.14189, eq. 8), with the mean in place of the sum of squares."""
    return torch.sqrt(squared(a, b) + c**2) - c


def v_weight(t: Tensor, path: Path) -> Tensor:
    """SNR + 1 scaled to the VP path, 1/sin^2 of the angle: an x0 error so weighted is a v error. Finite at SNR 0."""
    return 1 / torch.sin(path.angle(t)) ** 2


def flow_weight(t: Tensor, path: Path) -> Tensor:
    """1/tau^2 with tau = sigma/(alpha + sigma): an x0 error so weighted is one of rectified flow's eps - x0, whose path
    is (1 - tau) x0 + tau eps, at equal SNR. Cut off at tau = 0.001, where rounding would be seen."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return (sigma / (alpha + sigma)).clamp(min=1e-3) ** -2


def truncated_snr(t: Tensor, path: Path) -> Tensor:
    """max(SNR, 1), arXiv:2202.00512, eq. 9. Finite at SNR 0."""
    return (1 / torch.tan(path.angle(t)) ** 2).clamp(min=1)


def distribution_gradient(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """DMD's direction for a generated x: (fake - real)/mean|x - real|, mean per sample (arXiv:2311.18828, eq. 8)."""
    scale = (x - real).abs().flatten(1).mean(1).clamp(min=1e-6)
    return (fake - real) / scale.reshape(-1, *[1] * (x.ndim - 1))


def noise_gradient(real: Tensor, fake: Tensor, t: Tensor, path: Path) -> Tensor:
    """sigma^2 (eps_real - eps_fake), given the two x0 at times t, with alpha and sigma scaled to the VP path.

    A difference of noises is -alpha/sigma times that of the x0.
    """
    angle = path.angle(t)
    return expand(torch.sin(angle) * torch.cos(angle), real) * (fake - real)


def mean_distance(x: Tensor, real: Tensor) -> Tensor:
    """sg[mean |x - real|] [B]: how far the teacher would move x, by which score losses are divided."""
    return per_sample((x - real).abs()).detach().clamp(min=1e-6)


def score_identity(x: Tensor, real: Tensor, fake: Tensor, alpha: float) -> Tensor:
    """(real - fake) . (real - x - alpha (real - fake))/sg[mean |x - real|], mean over elements (arXiv:2404.04057).

    With the fake score of x's own density it is 1 - alpha times the squared distance of the scores, in expectation; its
    gradient is a descent also at alpha = 1, if both scores pass theirs on to x.
    """
    gap = real - fake
    return per_sample(gap * (real - x - alpha * gap)) / mean_distance(x, real)


def follow(x: Tensor, gradient: Tensor) -> Tensor:
    """A loss whose gradient in x is `gradient`/elements: half the squared distance to the constant x - gradient."""
    return 0.5 * squared(x, (x - gradient).detach())


def gan_generator(fake_logits: Tensor) -> Tensor:
    """Non-saturating: softplus(-D(fake))."""
    return per_sample(F.softplus(-fake_logits))


def gan_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """softplus(D(fake)) + softplus(-D(real))."""
    return per_sample(F.softplus(fake_logits)) + per_sample(F.softplus(-real_logits))


def hinge_generator(fake_logits: Tensor) -> Tensor:
    """-D(fake)."""
    return -per_sample(fake_logits)


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """max(0, 1 + D(fake)) + max(0, 1 - D(real))."""
    return per_sample(F.relu(1 + fake_logits)) + per_sample(F.relu(1 - real_logits))
