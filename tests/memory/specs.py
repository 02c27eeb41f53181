"""Twelve jobs over the families: methods of different shape, batches, and parts of a batch."""

from typing import Any

from service.spec import JobSpec

KD = {"kind": "kd", "iterations": 2, "pairs": 8}
DMD2 = {"kind": "dmd2", "iterations": 2, "fake_updates": 1}
LADD = {"kind": "ladd", "iterations": 2, "pairs": 8}
PROGRESSIVE = {"kind": "progressive", "first_steps": 2, "rung_iterations": 2}

JOBS: list[tuple[str, dict[str, Any]]] = [
    ("unet2d", PROGRESSIVE | {"batch_size": 8}),
    ("dit", KD | {"batch_size": 16}),
    ("sdxl", DMD2 | {"batch_size": 4, "guidance_scale": 2.0}),
    ("sd3", LADD | {"batch_size": 4}),
    ("unet2d", {"kind": "sid", "iterations": 2, "fake_updates": 1, "batch_size": 8}),
    ("stable-diffusion-1", {"kind": "consistency", "iterations": 2, "batch_size": 8}),
    ("sdxl", KD | {"batch_size": 8, "micro_batches": 2}),
    ("sd3.5", DMD2 | {"batch_size": 8, "micro_batches": 4}),
    ("flux-dev", {"kind": "reflow", "iterations": 2, "pairs": 8, "batch_size": 4}),
    ("pixart-sigma", DMD2 | {"batch_size": 8, "gan_weight": 0.01}),
    ("sana", PROGRESSIVE | {"batch_size": 8, "micro_batches": 2}),
    ("z-image", LADD | {"batch_size": 4, "r1_weight": 0.0}),
]
"""The first four are cheap enough for every test run."""
CHEAP = 4


def title(name: str, method: dict[str, Any]) -> str:
    """Of a row."""
    settings = JobSpec.model_validate({"teacher": "t", "method": method}).chain()[0].method
    parts = f" in {settings.micro_batches}" if settings.micro_batches > 1 else ""
    return f"{name}, {settings.kind}, {settings.batch_size}{parts}"
