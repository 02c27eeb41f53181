"""The picture of a student: its images beside its teacher's, from the same seeds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.evaluate.evaluator import Asked, Generate
from workers.grid import grid_png

COLUMNS = 10
PROMPTS = 6
SEEDS = 2
"""Images of each prompt."""


def shown(generate: Generate, steps: int, prompts: Sequence[str], num_classes: int | None, batch: int) -> Tensor:
    """What a sampler makes for the picture, [N, C, H, W] on the CPU: `SEEDS` images of each of the first prompts;
    without prompts image i has seed i, and class i if there are classes.

    Args:
        batch: images to make at once.
    """
    seeds = list(range(SEEDS)) * len(prompts[:PROMPTS])
    asked: Asked = [prompt for prompt in prompts[:PROMPTS] for _ in range(SEEDS)]
    if not prompts:
        seeds = list(range(min(num_classes or COLUMNS, COLUMNS)))
        asked = None if num_classes is None else torch.tensor(seeds)
    parts = [slice(start, start + batch) for start in range(0, len(seeds), batch)]
    return torch.cat([generate(None if asked is None else asked[p], seeds[p], steps).cpu() for p in parts])


def side_by_side(samplers: Sequence[tuple[str, int, Tensor]], prompts: Sequence[str] = ()) -> bytes:
    """A PNG grid. With prompts, a row for each of the first; otherwise a row for each sampler.

    Args:
        samplers: of each who it is, in how many steps, and what is `shown` of it.
    """
    names = [f"{who}, {n} step{'' if n == 1 else 's'}" for who, n, _ in samplers]
    if not prompts:
        return grid_png([images for _, _, images in samplers], labels=names)
    rows = [torch.cat(row) for row in zip(*(images.split(SEEDS) for _, _, images in samplers), strict=True)]
    return grid_png(rows, labels=prompts[:PROMPTS], heads=names)
