"""Jobs over the families: methods of different shape, batches, and parts of a batch; and what is measured whole."""

from typing import Any

from service.spec import JobSpec

KD = {"kind": "kd", "iterations": 2, "pairs": 8, "pair_steps": 1}
DMD2 = {"kind": "dmd2", "iterations": 2, "fake_updates": 1}
LADD = {"kind": "ladd", "iterations": 2, "pairs": 8, "pair_steps": 1}
PROGRESSIVE = {"kind": "progressive", "first_steps": 2, "rung_iterations": 2}

Job = tuple[str, dict[str, Any], dict[str, Any]]
"""A teacher's name, a method, and how it is computed."""

JOBS: list[Job] = [
    ("unet2d", PROGRESSIVE | {"batch_size": 8}, {}),
    ("dit", KD | {"batch_size": 16}, {}),
    ("sdxl", DMD2 | {"batch_size": 4, "guidance_scale": 2.0}, {}),
    ("sd3", LADD | {"batch_size": 4}, {}),
    ("unet2d", {"kind": "sid", "iterations": 2, "fake_updates": 1, "batch_size": 8}, {}),
    ("stable-diffusion-1", {"kind": "consistency", "iterations": 2, "batch_size": 8}, {}),
    ("sdxl", KD | {"batch_size": 8, "micro_batches": 2}, {}),
    ("sd3.5", DMD2 | {"batch_size": 8, "micro_batches": 4}, {}),
    ("flux-dev", {"kind": "reflow", "iterations": 2, "pairs": 8, "pair_steps": 1, "batch_size": 4}, {}),
    ("pixart-sigma", DMD2 | {"batch_size": 8, "gan_weight": 0.01}, {}),
    ("sana", PROGRESSIVE | {"batch_size": 8, "micro_batches": 2}, {}),
    ("z-image", LADD | {"batch_size": 4, "r1_weight": 0.0}, {}),
]
"""All weights are trained, in 32 bits, and all activations are kept."""

LCM = {"kind": "lcm", "iterations": 2}
BF16, AGAIN = {"precision": "bf16"}, {"activation_checkpointing": True}
SAVING: list[Job] = [
    ("sdxl", LCM | {"batch_size": 4, "lora_rank": 4}, {}),
    ("sd3", DMD2 | {"batch_size": 4, "lora_rank": 4, "fake_lora_rank": 4}, {}),
    ("sdxl", LCM | {"batch_size": 4}, BF16),
    ("sdxl", LCM | {"batch_size": 8}, AGAIN),
    ("sdxl", LCM | {"batch_size": 8, "lora_rank": 4}, BF16 | AGAIN),
    ("sdxl", DMD2 | {"batch_size": 4, "lora_rank": 4}, {}),
    ("sd3.5", KD | {"batch_size": 4}, BF16),
    ("z-image", KD | {"batch_size": 4}, BF16),
    ("sd3", DMD2 | {"batch_size": 4}, AGAIN),
    ("sana", KD | {"batch_size": 4}, AGAIN),
    ("pixart-sigma", DMD2 | {"batch_size": 8, "gan_weight": 0.01}, BF16 | AGAIN),
    ("flux-dev", KD | {"batch_size": 4, "lora_rank": 4}, BF16 | AGAIN),
    ("unet2d", KD | {"batch_size": 64, "pairs": 64, "student_width": 0.25}, BF16 | AGAIN),
]
"""Low-rank updates, rounding, blocks that are run again, and several of them; in the last one the teacher takes most,
while it makes pairs for a small student."""
GUIDED = {"guidance_scale": 2.0}
WHOLE: list[tuple[Job, int]] = [
    (("sdxl", LCM | GUIDED | {"batch_size": 1, "lora_rank": 4}, {}), 0),
    (("sdxl", DMD2 | GUIDED | {"batch_size": 4}, {}), 0),
    (("stable-diffusion-1", DMD2 | GUIDED | {"batch_size": 1, "lora_rank": 4, "fake_lora_rank": 4}, {}), 40),
]
"""From the teacher's folder to the student's, with so many captions of a dataset, or a spec's prompts. Low-rank updates
on small batches need most when students are judged."""
CHEAP = {*range(4), *range(len(JOBS), len(JOBS) + 5), len(JOBS + SAVING) - 1}
"""Cheap enough for every test run: their places among both."""


def title(name: str, method: dict[str, Any], compute: dict[str, Any]) -> str:
    """Of a row."""
    settings = JobSpec.model_validate({"teacher": "t", "method": method}).chain()[0].method
    parts = f" in {settings.micro_batches}" if settings.micro_batches > 1 else ""
    ranks = [f"{field} {method[field]}" for field in method if field.endswith("lora_rank")]
    words = [name, settings.kind, f"{settings.batch_size}{parts}", *ranks]
    return ", ".join(words + [field if value is True else str(value) for field, value in compute.items()])
