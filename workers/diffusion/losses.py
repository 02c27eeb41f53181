"""Parts that losses are made of. Each reduces to one number per sample [B] unless it says otherwise."""

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.diffusion.paths import Path


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


def truncated_snr(t: Tensor, path: Path) -> Tensor:
    """max(SNR, 1), arXiv:2202.00512, eq. 9. Finite at SNR 0."""
    return (1 / torch.tan(path.angle(t)) ** 2).clamp(min=1)


def distribution_gradient(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """DMD's direction for a generated x: (fake - real)/mean|x - real|, mean per sample (arXiv:2311.18828, eq. 8)."""
    scale = (x - real).abs().flatten(1).mean(1).clamp(min=1e-6)
    return (fake - real) / scale.reshape(-1, *[1] * (x.ndim - 1))


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
