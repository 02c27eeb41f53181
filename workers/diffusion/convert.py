"""One prediction type into another: the only place with this algebra.

Every type is a linear form a x0 + b eps, and so is the noisy image, x = alpha x0 + sigma eps. Two forms determine the
third; the coefficients are worked out in float64 and only the last product is done in the images' own precision.
"""

from typing import Literal

import torch
from torch import Tensor

from workers.diffusion.paths import Path, expand

Prediction = Literal["x0", "eps", "v", "flow", "score", "trigF"]
PREDICTIONS: tuple[Prediction, ...] = ("x0", "eps", "v", "flow", "score", "trigF")


def form(kind: Prediction, t: Tensor, path: Path, sigma_data: float = 1.0) -> tuple[Tensor, Tensor]:
    """Coefficients (a, b) [B] of a prediction a x0 + b eps.

    - x0, eps: the clean image, the noise.
    - v: alpha eps - sigma x0 with alpha, sigma scaled to alpha^2 + sigma^2 = 1 (arXiv:2202.00512, appendix D).
    - flow: dx/dt = alpha' x0 + sigma' eps.
    - score: grad log p = -eps/sigma.
    - trigF: the network F of TrigFlow, (cos t sigma_d eps - sin t x0)/sigma_d, at equal SNR (arXiv:2410.11081, eq. 5).
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    match kind:
        case "x0":
            return torch.ones_like(t), torch.zeros_like(t)
        case "eps":
            return torch.zeros_like(t), torch.ones_like(t)
        case "v":
            norm = torch.hypot(alpha, sigma)
            return -sigma / norm, alpha / norm
        case "flow":
            return path.dalpha(t), path.dsigma(t)
        case "score":
            return torch.zeros_like(t), -1 / sigma
        case "trigF":
            norm = torch.hypot(alpha, sigma / sigma_data)
            return -sigma / (norm * sigma_data**2), alpha / norm


def convert(
    x: Tensor, t: Tensor, out: Tensor, src: Prediction, dst: Prediction, path: Path, sigma_data: float = 1.0
) -> Tensor:
    """The prediction `out` of type `src` at the noisy image `x` [B, ...] and time `t` [B], as type `dst`.

    The result is not finite where `src` does not determine `dst`: eps at alpha = 0, x0 at sigma = 0.
    """
    if src == dst:
        return out
    return recombine(x, t, out, form(src, t, path, sigma_data), form(dst, t, path, sigma_data), path)


def recombine(
    x: Tensor, t: Tensor, out: Tensor, src: tuple[Tensor, Tensor], dst: tuple[Tensor, Tensor], path: Path
) -> Tensor:
    """`out`, known to be of the form `src` = (a, b), as one of the form `dst`."""
    (a, b), (c, d) = src, dst
    alpha, sigma = path.alpha(t), path.sigma(t)
    determinant = alpha * b - sigma * a
    of_x = (c * b - d * a) / determinant
    of_out = (d * alpha - c * sigma) / determinant
    return expand(of_x, x) * x + expand(of_out, x) * out
