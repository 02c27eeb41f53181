"""Learn a 2-D mixture from its closed-form denoiser, and how far the student's samples are from exact ones."""

from dataclasses import dataclass
from typing import Any

import torch
from gaussian import Row
from torch import Tensor

from service.methods.base import PairSettings
from workers.data.source import ImageSource
from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.mixture import MixtureDenoiser, MlpDenoiser, six_modes
from workers.pairs import pairs
from workers.state import State
from workers.trainer import Cadence, Trainer

SAMPLES = 4000


def fitted_mixture() -> MixtureDenoiser:
    """The oracle teacher; its `network` was fitted to its closed-form denoiser, as a real teacher would be to data."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    network = MlpDenoiser()
    teacher = six_modes(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for step in range(1200):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / 1200)
        x0 = teacher.sample(256, rng)
        t = torch.rand(256, generator=rng, dtype=torch.float64).clamp(min=1e-3)
        x_t = teacher.path.add_noise(x0, torch.randn(256, 2, generator=rng), t)
        loss = (network.raw(x_t, t, None) - teacher.predict(x_t, t, None, "v")).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher


def training_points(mixture: MixtureDenoiser) -> ImageSource:
    return ImageSource(mixture.sample(50_000, torch.Generator().manual_seed(1)), None)


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased, so about 0 for equal distributions."""
    n, m = len(a), len(b)
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return (2 * torch.cdist(a, b).mean() - within).item()


def noise_and_truth(mixture: MixtureDenoiser) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(11)
    return torch.randn(SAMPLES, 2, generator=rng), mixture.sample(SAMPLES, rng)


@dataclass(frozen=True)
class Learnt:
    student: Denoiser
    distance: float
    bar: float


def learn(kind: str, row: Row, mixture: MixtureDenoiser, points: ImageSource, host: Any) -> Learnt:
    """Train by the row's settings, and sample with the method's own sampler."""
    assert row.mixture is not None
    settings, steps, bar = row.mixture
    method = REGISTRY[kind](settings, mixture, mixture)
    images = points if method.data_need == "images" else None
    if isinstance(settings, PairSettings):
        made = pairs(mixture, settings.pair_steps, settings.pairs, seed=3)
        images = ImageSource(made["images"], None, made["noise"])
    run = Trainer(method, images, host, State(), Cadence(10**6, 10**6), seed=0)
    run.run()
    _, truth = noise_and_truth(mixture)
    samples = sample(run.average, SamplerSpec(method.sampler_kind, (steps,)), steps, None, seeded(range(SAMPLES)))
    return Learnt(run.average, energy_distance(samples, truth), bar)
