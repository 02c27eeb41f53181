"""Derivatives of a network along a direction in (x, t)."""

from collections.abc import Callable

import torch
from torch import Tensor

from workers.diffusion.paths import expand


@torch.no_grad()
def directional(
    f: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, dx: Tensor, dt: Tensor, step: float | None = None
) -> tuple[Tensor, Tensor]:
    """f(x, t) and its derivative along (dx, dt), neither with gradients.

    Args:
        f: of x [B, ...] and t [B] (float64).
        dx: [B, ...]. dt: [B].
        step: None takes the exact derivative in forward mode. Some attention kernels have none; there a number takes
            the central difference (f(x + h dx, t + h dt) - f(x - h dx, t - h dt))/2h with h = step, in the precision
            of f: its error is of order h^2, and of order 1e-7/h in float32.
    """
    if step is None:
        value, derivative, *_ = torch.func.jvp(f, (x, t), (dx, dt.to(t)))
        return value, derivative
    ahead, behind = (f(x + expand(h, x) * dx, t + h * dt) for h in (t.new_tensor(step), t.new_tensor(-step)))
    return f(x, t), (ahead - behind) / (2 * step)
