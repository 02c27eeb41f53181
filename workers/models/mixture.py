"""Densities whose denoiser is known in closed form: the oracle teachers, and a small network to distil them into."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workers.diffusion.convert import Prediction
from workers.diffusion.paths import Path, VPCosine, expand
from workers.models.denoiser import Denoiser
from workers.models.low_rank import copied
from workers.models.taps import outputs


class MixtureDenoiser(Denoiser):
    """A mixture of isotropic Gaussians in D dimensions; E[x0 | x_t] exactly, on any path.

    Args:
        weights: [K], summing to 1. means: [K, D]. stds: [K].
        network: what a student of this teacher starts from, since closed forms have no weights to copy.
    """

    def __init__(
        self, weights: Tensor, means: Tensor, stds: Tensor, path: Path | None = None, network: Denoiser | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.weights: Tensor
        self.means: Tensor
        self.stds: Tensor
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("stds", stds)
        self.path, self.prediction, self.shape = path or VPCosine(), "x0", (means.shape[1],)
        self.feature_channels = () if network is None else network.feature_channels

    def raw_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        """Of the network that learnt the closed form."""
        assert self.network is not None
        return self.network.features(x, t, labels)

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        alpha, sigma = expand(self.path.alpha(t), x), expand(self.path.sigma(t), x)
        variance_BK = (alpha * self.stds) ** 2 + sigma**2
        residual_BKD = x[:, None] - alpha[:, :, None] * self.means
        log_BK = (
            self.weights.log()
            - 0.5 * residual_BKD.square().sum(-1) / variance_BK
            - 0.5 * len(self.means[0]) * variance_BK.log()
        )
        gain_BK = alpha * self.stds**2 / variance_BK
        x0_BKD = self.means + gain_BK[:, :, None] * residual_BKD
        return (torch.softmax(log_BK, dim=1)[:, :, None] * x0_BKD).sum(1)

    def trainable_copy(self) -> Denoiser:
        assert self.network is not None
        return self.network.trainable_copy()

    def with_low_rank(self, rank: int, targets: Sequence[str] | None = None) -> Denoiser:
        assert self.network is not None
        return self.network.with_low_rank(rank, targets)

    def smaller(self, width: float, depth: float) -> Denoiser:
        assert self.network is not None
        return self.network.smaller(width, depth)

    def with_conditions(self, copies: int) -> Denoiser:
        assert self.network is not None
        return self.network.with_conditions(copies)

    def with_target(self) -> Denoiser:
        assert self.network is not None
        return self.network.with_target()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Exact draws [n, D]."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[k] + self.stds[k, None] * noise


def six_modes(network: Denoiser | None = None) -> MixtureDenoiser:
    """Six modes of unequal weight and width on a ring in the plane, about unit variance."""
    angle = torch.arange(6) * (math.pi / 3)
    radius = torch.tensor([1.4, 1.0, 1.3, 0.9, 1.5, 1.1])
    means = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    weights = torch.tensor([0.28, 0.08, 0.2, 0.12, 0.22, 0.1])
    return MixtureDenoiser(weights, means, torch.tensor([0.12, 0.2, 0.08, 0.15, 0.1, 0.18]), network=network)


class MlpDenoiser(Denoiser):
    """A small network on vectors [B, D] that predicts v; x0 = alpha x - sigma v is finite at every time."""

    prediction: Prediction = "v"
    lora_targets = ("net.2", "net.4", "net.6")

    def __init__(
        self,
        dimension: int = 2,
        width: int = 128,
        path: Path | None = None,
        conditions: int = 0,
        knows_target: bool = False,
    ) -> None:
        super().__init__()
        self.path, self.shape, self.conditions = path or VPCosine(), (dimension,), conditions
        self.knows_target, self.feature_channels = knows_target, (width, width)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.pi * torch.arange(1, 9) / 2)
        self.net = nn.Sequential(
            nn.Linear(dimension + 16 + 16 * knows_target + conditions, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, dimension),
        )

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        return self.net(self._input(x, t, labels, s))

    def raw_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        """[B, width] after each of the first two of the three hidden layers."""
        return outputs(self.net, [self.net[1], self.net[3]], lambda: self.raw(x, t, labels), self.runs_to_the_end)

    def _input(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None) -> Tensor:
        parts = [x, *self._waves(x, t)]
        if self.knows_target:
            assert s is not None, "this network has to be told the target time"
            parts += self._waves(x, s)
        if labels is not None:
            parts.append(nn.functional.one_hot(labels, self.conditions).to(x))
        return torch.cat(parts, dim=1)

    def _waves(self, x: Tensor, t: Tensor) -> list[Tensor]:
        phase = self.path.angle(t).to(x)[:, None] * self.frequencies.to(x)
        return [phase.cos(), phase.sin()]

    def smaller(self, width: float, depth: float) -> "MlpDenoiser":
        """With the first of its channels; all of its layers are needed."""
        assert depth == 1
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        other = MlpDenoiser(self.shape[0], int(last.in_features * width), self.path, self.conditions, self.knows_target)
        weights = self.state_dict()
        other.load_state_dict(
            {name: weights[name][tuple(map(slice, own.shape))] for name, own in other.state_dict().items()}
        )
        return other.eval()

    def with_conditions(self, copies: int) -> "MlpDenoiser":
        return self._with_blind_inputs(copies, "conditions", copies)

    def with_target(self) -> "MlpDenoiser":
        return self._with_blind_inputs(16, "knows_target", True)

    def baked(self, steps: Sequence[tuple[float, float]]) -> Denoiser:
        """There is no format to keep: it goes on taking the target time."""
        return self.frozen_copy()

    def _with_blind_inputs(self, number: int, named: str, value: Any) -> "MlpDenoiser":
        """A copy with further inputs, last of all, that it does not listen to yet."""
        other = copied(self)
        first = other.net[0]
        assert isinstance(first, nn.Linear)
        blind = first.weight.new_zeros(first.out_features, number)
        other.net[0] = nn.Linear(first.in_features + number, first.out_features).to(blind)
        other.net[0].load_state_dict({"weight": torch.cat([first.weight, blind], dim=1), "bias": first.bias})
        setattr(other, named, value)
        other.path = self.path
        return other.eval().requires_grad_(True)
