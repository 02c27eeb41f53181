"""The signal left at a schedule's end, against diffusers' own schedules."""

from typing import Any

import pytest
from diffusers import DDIMScheduler

from service.noise_schedule import NO_SIGNAL, last_alpha


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
)
def test_it_is_that_of_diffusers(config: dict[str, Any]) -> None:
    theirs = DDIMScheduler(**config).alphas_cumprod[-1].sqrt().item()
    assert last_alpha(config) == pytest.approx(theirs, rel=1e-3)


def test_which_schedules_leave_no_signal() -> None:
    assert last_alpha({"rescale_betas_zero_snr": True}) == 0
    cosine = last_alpha({"beta_schedule": "squaredcos_cap_v2"})
    assert cosine is not None
    assert cosine < NO_SIGNAL
    assert last_alpha({"beta_schedule": "sigmoid"}) is None, "unknown, so the worker has the last word"
