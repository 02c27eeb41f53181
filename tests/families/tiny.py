"""What a family's tests give of it: a tiny pipeline of the true architecture, and how the pipeline is run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Fault:
    """A convention broken on purpose; `plant` breaks it in the denoiser that it is given."""

    name: str
    plant: Callable[[Any, pytest.MonkeyPatch], None]


def wrong_time(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times on the scale of 0 to 1."""
    call = denoiser.call
    monkeypatch.setattr(denoiser, "call", lambda x, time, rows: call(x, time / 1000, rows))


def wrong_prediction(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """v taken for epsilon, anything else for v: both finite where sampling starts, as epsilon is not for a flow."""
    monkeypatch.setattr(denoiser, "prediction", "eps" if denoiser.prediction == "v" else "v")


def forgotten(row: str) -> Callable[[Any, pytest.MonkeyPatch], None]:
    """Zeros in the place of a condition."""

    def plant(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        call = denoiser.call

        def without(x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
            changed: Tensor = call(x, time, rows | {row: torch.zeros_like(rows[row])})
            return changed

        monkeypatch.setattr(denoiser, "call", without)

    return plant


def pixels(pipe: Any, noise: Tensor) -> dict[str, int]:
    """What a pipeline is told of the size of the noise."""
    height, width = (side * pipe.vae_scale_factor for side in noise.shape[-2:])
    return {"height": height, "width": width}


@dataclass(frozen=True)
class Tiny:
    """Args:
    family: the adapter, a `Backbone` or EDM's.
    make: a pipeline with random weights, of the architecture that the family's published models have.
    run: (pipe, prompts or classes, noise [B, C, H, W], steps, guidance scale) -> the latents that the pipeline itself
        ends with; guidance scale 1 is off.
    guidances: the scales at which the pipeline can be run.
    """

    family: type[Any]
    make: Callable[[], Any]
    run: Callable[[Any, list[Any], Tensor, int, float], Tensor]
    faults: list[Fault] = field(default_factory=list)
    guidances: tuple[float, ...] = (1.0, 4.0)
