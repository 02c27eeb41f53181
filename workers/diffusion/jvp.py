"""Derivatives of a network along a direction in (x, t)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from workers.diffusion.paths import expand
from workers.precision import exact


@torch.no_grad()
def directional(
    f: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, dx: Tensor, dt: Tensor, step: float | None = None
) -> tuple[Tensor, Tensor]:
    """f(x, t) and its derivative along (dx, dt), neither with gradients.

    Args:
        f: of x [B, ...] and t [B] (float64).
        dx: [B, ...]. dt: [B].
        step: None takes the exact derivative in forward mode; torch's attention is then computed by its plain kernel,
            the only one with such a derivative, and the network runs in full precision, for in half the derivative
            explodes. A number takes the central difference
            (f(x + h dx, t + h dt) - f(x - h dx, t - h dt))/2h with h = step, in the precision of f: its error is of
            order h^2, and of order 1e-7/h in float32.
    """
    if step is None:
        with exact(), sdpa_kernel(SDPBackend.MATH), _ContiguousGroupNorm():
            value, derivative, *_ = torch.func.jvp(f, (x, t), (dx, dt.to(t)))
        return value, derivative
    ahead, behind = (f(x + expand(h, x) * dx, t + h * dt) for h in (t.new_tensor(step), t.new_tensor(-step)))
    return f(x, t), (ahead - behind) / (2 * step)


@torch.no_grad()
def one_sided(
    f: Callable[[Tensor, Tensor], Tensor], value: Tensor, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor, step: float
) -> Tensor:
    """The backward difference (f(x, t) - f(x - h dx, t - h dt))/h with h = step, given the value f(x, t)."""
    h = t.new_tensor(step)
    return (value - f(x - expand(h, x) * dx, t - h * dt)) / step


class _ContiguousGroupNorm(TorchFunctionMode):
    """The forward derivative of torch's group_norm fails on an input that is not contiguous, as after attention."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.group_norm:
            args = (args[0].clone(memory_format=torch.contiguous_format), *args[1:])
        return func(*args, **(kwargs or {}))
