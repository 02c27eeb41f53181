"""Sample grids while training: the same seeds every time, one column per class."""

import torch

from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.grid import grid_png
from workers.host import Host
from workers.models.denoiser import Denoiser

COLUMNS = 10


class Preview:
    """Draws up to `COLUMNS` images, of as many classes."""

    def __init__(self, host: Host, num_classes: int | None) -> None:
        self.host = host
        self.columns = COLUMNS if num_classes is None else min(num_classes, COLUMNS)
        self.labels = None if num_classes is None else torch.arange(self.columns, device=host.device)

    def teacher(self, teacher: Denoiser, steps: int) -> None:
        """The reference row, before the first step."""
        spec = SamplerSpec("ddim", (steps,), teacher.path.timesteps)
        self.host.sample(0, 0, "teacher", steps, self._png(teacher, spec))

    def student(self, student: Denoiser, spec: SamplerSpec, step: int, stage: int) -> None:
        """The student at the first of the steps that it is made for."""
        self.host.sample(step, stage, "student", spec.steps[0], self._png(student, spec))

    def _png(self, denoiser: Denoiser, spec: SamplerSpec) -> bytes:
        generators = seeded(range(self.columns))
        images = sample(denoiser, spec, spec.steps[0], self.labels, generators, self.host.device)
        return grid_png([images.clamp(-1, 1).cpu()])
