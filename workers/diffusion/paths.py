"""Noise paths x_t = alpha(t) x0 + sigma(t) eps, with eps ~ N(0, I) and t = 0 the clean image.

Times are float64 tensors [B] on the CPU: there are only B of them, and the algebra near t = 0 and t = t_max needs the
digits. `expand` carries their coefficients to where the images are.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


def expand(c_B: Tensor, like: Tensor) -> Tensor:
    """Coefficients [B] (or a scalar) in `like`'s dtype and device, shaped to multiply `like` [B, ...]."""
    c_B = c_B.to(device=like.device, dtype=like.dtype, non_blocking=True)
    return c_B.reshape(c_B.shape + (1,) * (like.ndim - 1)) if c_B.ndim else c_B


class Path(ABC):
    """A noise path. `t_max` is the time at which sampling starts; log-SNR falls from t = 0 to t_max."""

    t_max: float = 1.0
    timesteps: int = 1000
    """Training timesteps; sampling grids for diffusers are made of whole ones."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def dalpha(self, t: Tensor) -> Tensor:
        """Derivative of alpha in t."""

    @abstractmethod
    def dsigma(self, t: Tensor) -> Tensor:
        """Derivative of sigma in t."""

    @abstractmethod
    def t_of_angle(self, angle: Tensor) -> Tensor:
        """The time at which atan(sigma/alpha) equals `angle`, in [0, pi/2]."""

    def t_to_model(self, t: Tensor) -> Tensor:
        """What a network native to this path takes as its time."""
        return t

    def angle(self, t: Tensor) -> Tensor:
        """atan(sigma/alpha) in [0, pi/2]: the log-SNR without its infinities, -2 log tan."""
        return torch.atan2(self.sigma(t), self.alpha(t))

    def logsnr(self, t: Tensor) -> Tensor:
        """log(alpha^2/sigma^2); +inf at t = 0, -inf where alpha is 0."""
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def t_of_logsnr(self, logsnr: Tensor) -> Tensor:
        return self.t_of_angle(torch.atan(torch.exp(-logsnr / 2)))

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def add_more_noise(self, x: Tensor, eps: Tensor, t: Tensor, later: Tensor) -> Tensor:
        """x at time t, taken to a `later` one: a draw from q(x_later | x_t)."""
        keep = self.alpha(later) / self.alpha(t)
        more = (self.sigma(later) ** 2 - (keep * self.sigma(t)) ** 2).clamp(min=0).sqrt()
        return expand(keep, x) * x + expand(more, x) * eps


class AnglePath(Path):
    """Variance preserving: alpha = cos, sigma = sin of an angle that grows from 0 at t = 0."""

    @abstractmethod
    def angle(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def dangle(self, t: Tensor) -> Tensor: ...

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self.angle(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(self.angle(t))

    def dalpha(self, t: Tensor) -> Tensor:
        return -self.sigma(t) * self.dangle(t)

    def dsigma(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self.dangle(t)


class VPCosine(AnglePath):
    """The cosine schedule (arXiv:2102.09672) without its offset: the angle is pi t/2."""

    def angle(self, t: Tensor) -> Tensor:
        return t * (torch.pi / 2)

    def dangle(self, t: Tensor) -> Tensor:
        return torch.full_like(t, torch.pi / 2)

    def t_of_angle(self, angle: Tensor) -> Tensor:
        return angle * (2 / torch.pi)


class VPDiscrete(AnglePath):
    """The path of a diffusers scheduler with N training timesteps, made continuous.

    t = (i + 1)/N is timestep i and t = 0 the clean image; the angle is linear in between, so it is finite and
    invertible at both ends, also where the terminal SNR is zero.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        alphas_cumprod = alphas_cumprod.double().cpu()
        angles = torch.atan2((1 - alphas_cumprod).sqrt(), alphas_cumprod.sqrt())
        self.angles = torch.cat([angles.new_zeros(1), angles])
        if not bool((self.angles.diff() > 0).all()):
            raise ValueError("alphas_cumprod must fall strictly from one training timestep to the next")
        self.timesteps = len(angles)

    def _cell(self, t: Tensor) -> Tensor:
        return (t * self.timesteps).floor().long().clamp(0, self.timesteps - 1)

    def angle(self, t: Tensor) -> Tensor:
        i = self._cell(t)
        return torch.lerp(self.angles[i], self.angles[i + 1], t * self.timesteps - i)

    def dangle(self, t: Tensor) -> Tensor:
        i = self._cell(t)
        return (self.angles[i + 1] - self.angles[i]) * self.timesteps

    def t_of_angle(self, angle: Tensor) -> Tensor:
        angle = angle.clamp(0.0, float(self.angles[-1]))
        i = (torch.searchsorted(self.angles, angle) - 1).clamp(0, self.timesteps - 1)
        return (i + (angle - self.angles[i]) / (self.angles[i + 1] - self.angles[i])) / self.timesteps

    def t_to_model(self, t: Tensor) -> Tensor:
        return (t * self.timesteps - 1).clamp(min=0)


class EDM(VPDiscrete):
    """The noise levels of Karras et al. (arXiv:2206.00364), with images x scaled to x/sqrt(1 + sigma^2).

    Time t = i/N stands for sigma/alpha = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho, so even
    steps in time are even on the grid that they sample on (eq. 5); below t = 1/N the angle falls to 0.
    """

    sigma_min, rho = 0.002, 7.0

    def __init__(self, sigma_max: float = 80.0) -> None:
        self.sigma_max = sigma_max
        sigmas = self.sigmas(torch.arange(1, Path.timesteps + 1, dtype=torch.float64) / Path.timesteps, sigma_max)
        super().__init__(1 / (1 + sigmas**2))

    @classmethod
    def sigmas(cls, t: Tensor, sigma_max: float) -> Tensor:
        """Noise levels of times from 1/N on, of images that are not scaled."""
        low, high = cls.sigma_min ** (1 / cls.rho), sigma_max ** (1 / cls.rho)
        return (low + t * (high - low)) ** cls.rho

    def t_of_sigma(self, sigma: Tensor) -> Tensor:
        return self.t_of_angle(torch.atan(sigma))

    def t_to_model(self, t: Tensor) -> Tensor:
        return torch.log(torch.tan(self.angle(t.clamp(min=1 / self.timesteps)))) / 4


class RectifiedFlow(Path):
    """Straight lines (arXiv:2209.03003): alpha = 1 - sigma, sigma = s t/(1 + (s - 1) t) with shift s >= 1."""

    def __init__(self, shift: float = 1.0) -> None:
        self.shift = shift

    def sigma(self, t: Tensor) -> Tensor:
        return self.shift * t / (1 + (self.shift - 1) * t)

    def alpha(self, t: Tensor) -> Tensor:
        return (1 - t) / (1 + (self.shift - 1) * t)

    def dsigma(self, t: Tensor) -> Tensor:
        return self.shift / (1 + (self.shift - 1) * t) ** 2

    def dalpha(self, t: Tensor) -> Tensor:
        return -self.dsigma(t)

    def t_of_angle(self, angle: Tensor) -> Tensor:
        sine, cosine = torch.sin(angle), torch.cos(angle)
        return sine / (sine + self.shift * cosine)

    def t_of_sigma(self, sigma: Tensor) -> Tensor:
        return sigma / (sigma + self.shift * (1 - sigma))

    def t_to_model(self, t: Tensor) -> Tensor:
        return 1000 * self.sigma(t)


class TrigFlow(Path):
    """Rotation of data and noise of one scale (arXiv:2410.11081): alpha = cos t, sigma = sigma_data sin t."""

    t_max = torch.pi / 2

    def __init__(self, sigma_data: float = 1.0) -> None:
        self.sigma_data = sigma_data

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * torch.sin(t)

    def dalpha(self, t: Tensor) -> Tensor:
        return -torch.sin(t)

    def dsigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * torch.cos(t)

    def t_of_angle(self, angle: Tensor) -> Tensor:
        return torch.atan2(torch.sin(angle), self.sigma_data * torch.cos(angle))
