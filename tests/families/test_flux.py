"""What is special to FLUX.1: its guidance as an input, and a shift that grows with the image."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_flux import dev, run, schnell

from workers.diffusion.solver import solve
from workers.families.flux import Flux
from workers.models.stock import scheduler_times

PROMPTS = ["a cat", "two dogs by the sea"]


def test_the_embedded_guidance_is_an_attribute_that_copies_keep() -> None:
    pipe = dev()
    pipe.set_progress_bar_config(disable=True)
    denoiser = Flux.of(pipe, PROMPTS).eval()
    denoiser.embedded_guidance = 1.5
    copied = denoiser.frozen_copy()
    noise = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(5))
    theirs = run(pipe, PROMPTS, noise, 2, 1.0, embedded_guidance=1.5)
    times, labels = scheduler_times(pipe.scheduler, copied.path), torch.arange(2)
    with torch.no_grad():
        ours = solve(lambda x, t: copied.predict(x, t, labels), noise, times, copied.path)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_only_a_network_with_guidance_built_in_is_told_a_scale() -> None:
    assert Flux.of(dev(), PROMPTS).embedded_guidance == 3.5
    assert Flux.of(schnell(), PROMPTS).embedded_guidance is None


@pytest.mark.parametrize("make", [schnell, dev])
def test_the_pipelines_own_times_are_uniform(make: Callable[[], Any]) -> None:
    """So the shift that the path has is the one at which the pipeline samples images of this size."""
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    denoiser = Flux.of(pipe, PROMPTS[:1])
    run(pipe, PROMPTS[:1], torch.zeros(1, *denoiser.shape), 4, 1.0)
    times = scheduler_times(pipe.scheduler, denoiser.path)
    torch.testing.assert_close(times, torch.linspace(1, 0, 5, dtype=torch.float64), atol=1e-6, rtol=0)
