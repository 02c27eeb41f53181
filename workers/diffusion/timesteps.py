"""Where on the path a batch is trained: times [B] in float64, each a function of stratified uniforms u [B] in [0, 1).

Stratified means one draw in each of B equal parts, in random order: the same distribution as independent draws, less
variance.
"""

import torch
from torch import Tensor

from workers.diffusion.paths import Path

SIGMA_MAX = 80.0
"""Noise level of the EDM path (arXiv:2206.00364) that stands for pure noise, and so for t_max of any path."""


def noise_level(t: Tensor, path: Path) -> Tensor:
    """sigma/alpha [B], the time on the EDM path at equal SNR, and SIGMA_MAX at most."""
    return torch.tan(path.angle(t)).clamp(max=SIGMA_MAX)


def time_of_noise_level(sigma: Tensor, path: Path) -> Tensor:
    """The time [B] at which `noise_level` is `sigma`; t_max from SIGMA_MAX on."""
    t_max = torch.full_like(sigma, path.t_max)
    return torch.where(sigma < SIGMA_MAX, path.t_of_angle(torch.atan(sigma)), t_max)


def uniform(u: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Uniform in [low, high), which may differ from sample to sample."""
    return low + (high - low) * u


def log_normal(u: Tensor, mean: float, std: float, path: Path, low: Tensor, high: float) -> Tensor:
    """log(sigma/alpha) ~ N(mean, std^2), as in arXiv:2206.00364, table 1, cut to the times in [low, high)."""
    first, last = (
        torch.special.ndtr((-path.logsnr(end) / 2 - mean) / std) for end in (low, torch.full_like(low, high))
    )
    return path.t_of_logsnr(-2 * (mean + std * torch.special.ndtri(first + (last - first) * u)))


def grid_cell(u: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """A cell (t, s) of a falling grid [N + 1], each cell equally likely: t = grid[i], s = grid[i + 1]."""
    i = (u * (len(grid) - 1)).long()
    return grid[i], grid[i + 1]


def even_grid(cells: int, t_max: float = 1.0) -> Tensor:
    """[cells + 1] times, evenly spaced from t_max down to 0."""
    return torch.linspace(1, 0, cells + 1, dtype=torch.float64) * t_max


def karras_grid(cells: int, t_max: float, t_min: float, rho: float = 7.0) -> Tensor:
    """[cells + 1] times from t_max down to 0 as in arXiv:2206.00364, eq. 5; the last but one is t_min."""
    ramp = torch.linspace(0, 1, cells, dtype=torch.float64)
    grid = (t_max ** (1 / rho) + ramp * (t_min ** (1 / rho) - t_max ** (1 / rho))) ** rho
    return torch.cat([grid, grid.new_zeros(1)])


def u_shaped(u: Tensor, steepness: float = 4.0) -> Tensor:
    """Density proportional to cosh(a (tau - 1/2)) on [0, 1], both ends more often than the middle; the inverse of its
    distribution function (arXiv:2405.20320; a = 4)."""
    a = torch.tensor(steepness, dtype=u.dtype)
    return 0.5 + torch.asinh((2 * u - 1) * torch.sinh(a / 2)) / a


def from_straight(tau: Tensor, path: Path) -> Tensor:
    """The times of `path` at which the SNR is that of (1 - tau) x0 + tau eps."""
    return path.t_of_angle(torch.atan2(tau, 1 - tau))
