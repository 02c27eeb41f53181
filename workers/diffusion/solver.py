"""Steps of the probability-flow ODE from time t to an earlier time s, and the inverse of one.

`predict(x, t)` gives the clean image x0 [B, ...] that the model expects behind x at times t [B].
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from workers.diffusion.convert import convert
from workers.diffusion.paths import Path, expand

Predict = Callable[[Tensor, Tensor], Tensor]
SolverName = Literal["ddim", "euler", "heun", "dpm2"]


def jump(x: Tensor, x0: Tensor, t: Tensor, s: Tensor, path: Path) -> Tensor:
    """DDIM (arXiv:2010.02502, eq. 12, eta = 0): x_s = alpha_s x0 + sigma_s eps, for the x0 predicted at t."""
    keep = torch.where(t == s, 1.0, path.sigma(s) / path.sigma(t))  # where nothing moves, t may also be 0
    return expand(path.alpha(s) - keep * path.alpha(t), x) * x0 + expand(keep, x) * x


def invert_target(x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor, path: Path) -> Tensor:
    """The x0 with which one DDIM step from (x_t, t) lands on (x_s, s); arXiv:2202.00512, appendix G, eq. 43."""
    keep = path.sigma(s) / path.sigma(t)
    scale = 1 / (path.alpha(s) - keep * path.alpha(t))
    return expand(scale, x_t) * x_s - expand(scale * keep, x_t) * x_t


def posterior(x_t: Tensor, x0: Tensor, eps: Tensor, t: Tensor, s: Tensor, path: Path) -> Tensor:
    """A draw from q(x_s | x_t, x0), s <= t, made of eps ~ N(0, I) (arXiv:2006.11239, eq. 6 and 7, for any two times).

    With a = alpha_t/alpha_s and v = sigma_t^2 - a^2 sigma_s^2, the variance of x_t given x_s: mean
    (a sigma_s^2 x_t + alpha_s v x0)/sigma_t^2, variance v sigma_s^2/sigma_t^2. At s = 0 it is x0.
    """
    a = path.alpha(t) / path.alpha(s)
    ratio = (path.sigma(s) / path.sigma(t)) ** 2
    share = (1 - a**2 * ratio).clamp(min=0)  # v/sigma_t^2
    mean = expand(a * ratio, x_t) * x_t + expand(path.alpha(s) * share, x_t) * x0
    return mean + expand(path.sigma(s) * share.sqrt(), x_t) * eps


def ddim(predict: Predict, x: Tensor, t: Tensor, s: Tensor, path: Path) -> Tensor:
    """First order; exact where x0 does not depend on t."""
    return jump(x, predict(x, t), t, s, path)


def euler(predict: Predict, x: Tensor, t: Tensor, s: Tensor, path: Path) -> Tensor:
    """First order in t along the path's own velocity."""
    return x + expand(s - t, x) * convert(x, t, predict(x, t), "x0", "flow", path)


def heun(predict: Predict, x: Tensor, t: Tensor, s: Tensor, path: Path) -> Tensor:
    """Second order (arXiv:2206.00364, algorithm 1); Euler's step where s = 0, as there."""
    u_t = convert(x, t, predict(x, t), "x0", "flow", path)
    x_s = x + expand(s - t, x) * u_t
    inner = s > 0
    if not bool(inner.any()):
        return x_s
    s_safe = torch.where(inner, s, t)
    u_s = convert(x_s, s_safe, predict(x_s, s_safe), "x0", "flow", path)
    return torch.where(expand(inner, x) > 0, x + expand((s - t) / 2, x) * (u_t + u_s), x_s)


def dpm2(predict: Predict, x: Tensor, t: Tensor, s: Tensor, path: Path) -> Tensor:
    """Second order: DDIM with the x0 at the midpoint (DPM-Solver++ 2S, arXiv:2211.01095), here midway in angle.

    Any smooth midpoint keeps the order, and the angle atan(sigma/alpha) is finite at both ends, log-SNR is not.
    """
    middle = path.t_of_angle((path.angle(t) + path.angle(s)) / 2)
    x_middle = jump(x, predict(x, t), t, middle, path)
    return jump(x, predict(x_middle, middle), t, s, path)


SOLVERS: dict[SolverName, Callable[[Predict, Tensor, Tensor, Tensor, Path], Tensor]] = {
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm2": dpm2,
}


def solve(predict: Predict, x: Tensor, times: Tensor, path: Path, solver: SolverName = "ddim") -> Tensor:
    """From times[0] down to times[-1], the whole batch on one grid [steps + 1]."""
    for t, s in pairwise(times):
        x = SOLVERS[solver](predict, x, t.expand(len(x)), s.expand(len(x)), path)
    return x
