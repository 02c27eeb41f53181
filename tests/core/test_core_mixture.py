"""Each method learns a 2-D mixture from its closed-form denoiser: one step of the student against exact samples."""

import math
from typing import Any

import pytest
import torch
from rows import ROWS
from torch import Tensor

from service.methods.base import PairSettings
from workers.data.source import ImageSource
from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.mixture import MixtureDenoiser
from workers.pairs import pairs
from workers.state import State
from workers.trainer import Cadence, Trainer

LEARN = {kind: row.mixture for kind, row in ROWS.items() if row.mixture is not None}
ALWAYS = ("progressive", "consistency", "dmd2")
"""One of each shape; the others take minutes together and are run by `make methods`."""


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased, so about 0 for equal distributions."""
    n, m = len(a), len(b)
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return (2 * torch.cdist(a, b).mean() - within).item()


def one_step(student: Denoiser, noise: Tensor) -> Tensor:
    with torch.no_grad():
        return student.predict(noise, torch.ones(len(noise), dtype=torch.float64), None)


def noise_and_truth(mixture: MixtureDenoiser) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(11)
    return torch.randn(4000, 2, generator=rng), mixture.sample(4000, rng)


def test_the_yardstick_knows_true_samples_from_the_teachers_few_steps(mixture: MixtureDenoiser) -> None:
    _, truth = noise_and_truth(mixture)
    other = mixture.sample(4000, torch.Generator().manual_seed(12))
    assert abs(energy_distance(other, truth)) < 0.001
    far = {}
    for steps in (1, 2, 4, 8):
        spec = SamplerSpec("ddim", (steps,))
        far[steps] = energy_distance(sample(mixture, spec, steps, None, seeded(range(4000))), truth)
    assert far[1] > 0.5 > far[2] > 0.05 > far[4] > far[8]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in ALWAYS else pytest.mark.slow) for kind in LEARN]
)
def test_learns_the_mixture(kind: str, mixture: MixtureDenoiser, mixture_points: ImageSource, local_host: Any) -> None:
    settings, steps, bar = LEARN[kind]
    method = REGISTRY[kind](settings, mixture, mixture)
    images = mixture_points if method.data_need == "images" else None
    if isinstance(settings, PairSettings):
        made = pairs(mixture, settings.pair_steps, settings.pairs, seed=3)
        images = ImageSource(made["images"], None, made["noise"])
    run = Trainer(method, images, local_host(), State(), Cadence(10**6, 10**6), seed=0)
    run.run()
    noise, truth = noise_and_truth(mixture)
    spec = SamplerSpec(method.sampler_kind, (steps,))
    made_of = sample(run.average, spec, steps, None, seeded(range(len(truth))))
    distance = energy_distance(made_of, truth)
    print(f"{kind}: energy distance {distance:.4f}, bar {bar}")
    assert distance < bar
    if kind in ("progressive", "consistency"):  # which keep the teacher's own way from noise to data
        exact = solve(lambda x, t: mixture.predict(x, t, None), noise, even_grid(200), mixture.path, "dpm2")
        rmse = (one_step(run.average, noise) - exact).square().sum(1).mean().sqrt().item() / math.sqrt(2)
        assert rmse < 0.25
