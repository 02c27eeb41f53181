"""Each method learns a 2-D mixture from its closed-form denoiser: one step of the student against exact samples."""

import math
from typing import Any

import pytest
import torch
from learning import SAMPLES, energy_distance, learn, noise_and_truth
from rows import ROWS
from torch import Tensor

from workers.data.source import ImageSource
from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.models.denoiser import Denoiser
from workers.models.mixture import MixtureDenoiser

LEARN = [kind for kind, row in ROWS.items() if row.mixture is not None]
ALWAYS = ("consistency",)
"""The others take minutes together, and are run by `make methods`."""


def one_step(student: Denoiser, noise: Tensor) -> Tensor:
    with torch.no_grad():
        return student.predict(noise, torch.ones(len(noise), dtype=torch.float64), None)


def test_the_yardstick_knows_true_samples_from_the_teachers_few_steps(mixture: MixtureDenoiser) -> None:
    _, truth = noise_and_truth(mixture)
    other = mixture.sample(SAMPLES, torch.Generator().manual_seed(12))
    assert abs(energy_distance(other, truth)) < 0.001
    far = {}
    for steps in (1, 2, 4, 8):
        spec = SamplerSpec("ddim", (steps,))
        far[steps] = energy_distance(sample(mixture, spec, steps, None, seeded(range(SAMPLES))), truth)
    assert far[1] > 0.5 > far[2] > 0.05 > far[4] > far[8]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in ALWAYS else pytest.mark.slow) for kind in LEARN]
)
def test_learns_the_mixture(kind: str, mixture: MixtureDenoiser, mixture_points: ImageSource, local_host: Any) -> None:
    learnt = learn(kind, ROWS[kind], mixture, mixture_points, local_host())
    print(f"{kind}: energy distance {learnt.distance:.4f}, bar {learnt.bar}")
    assert learnt.distance < learnt.bar
    if kind in ("progressive", "consistency"):  # which keep the teacher's own way from noise to data
        noise, _ = noise_and_truth(mixture)
        exact = solve(lambda x, t: mixture.predict(x, t, None), noise, even_grid(200), mixture.path, "dpm2")
        rmse = (one_step(learnt.student, noise) - exact).square().sum(1).mean().sqrt().item() / math.sqrt(2)
        assert rmse < 0.25
