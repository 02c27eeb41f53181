"""Where on the path a batch is trained: times [B] in float64, each a function of stratified uniforms u [B] in [0, 1).

Stratified means one draw in each of B equal parts, in random order: the same distribution as independent draws, less
variance.
"""

import torch
from torch import Tensor


def uniform(u: Tensor, low: float | Tensor, high: float) -> Tensor:
    """Uniform in [low, high); `low` may differ from sample to sample."""
    return low + (high - low) * u


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
