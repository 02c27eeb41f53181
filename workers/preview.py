"""Samples while training, the same seeds every time: a grid to look at, and figures that warn of trouble."""

from collections.abc import Callable

import torch
from torch import Tensor

from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.grid import grid_png
from workers.host import Host
from workers.models.denoiser import Denoiser
from workers.precision import exact

COLUMNS = 10
AT_ONCE = 8
"""Images; under guidance, twice as many rows go through the network."""
OUTSIDE = 1.1
"""Images lie in [-1, 1]; good students overshoot by a little."""


Decode = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] in [-1, 1] of what networks work on."""


def itself(images: Tensor) -> Tensor:
    """Networks that work on pixels."""
    return images


class Preview:
    """Draws up to `COLUMNS` images, one of each class or prompt, and a second one of each that is only measured.

    Args:
        decode: images of what the networks work on.
    """

    def __init__(self, host: Host, num_classes: int | None, decode: Decode = itself) -> None:
        self.host, self.decode = host, decode
        self.columns = COLUMNS if num_classes is None else min(num_classes, COLUMNS)
        self.labels = None if num_classes is None else torch.arange(self.columns, device=host.device).repeat(2)

    def teacher(self, teacher: Denoiser, steps: int) -> tuple[Tensor, Tensor]:
        """The reference row, before the first step. Returns what was drawn, not clipped, and its images."""
        drawn = self._draw(teacher, SamplerSpec.on(teacher.path, "ddim", [steps]))
        images = self.decode(drawn)
        if self.host.rank == 0:
            self.host.sample(0, 0, "teacher", steps, self._png(images))
        return drawn, images

    def student(self, student: Denoiser, spec: SamplerSpec, step: int, stage: int) -> dict[str, float]:
        """The student at the first of the steps that it is made for.

        Returns:
            sample_size: root mean square of pixels or latents, about 1 at most; it explodes before a loss becomes NaN.
            sample_saturation: share of pixels beyond +-1.1, as too much guidance or a too strong critic leaves them.
            sample_diversity: root mean square difference of two images of one class; it falls as modes are lost.
        """
        drawn = self._draw(student, spec)
        images = self.decode(drawn)
        self.host.sample(step, stage, "student", spec.steps[0], self._png(images))
        one, other = images.chunk(2)
        return {
            "sample_size": drawn.square().mean().sqrt().item(),
            "sample_saturation": (images.abs() > OUTSIDE).float().mean().item(),
            "sample_diversity": (one - other).square().mean().sqrt().item(),
        }

    def _draw(self, denoiser: Denoiser, spec: SamplerSpec) -> Tensor:
        """[2 columns, C, H, W], not clipped."""
        seeds = torch.arange(2 * self.columns)
        parts = [(part, None if self.labels is None else self.labels[part]) for part in seeds.split(AT_ONCE)]
        with exact():
            return torch.cat(
                [
                    sample(denoiser, spec, spec.steps[0], labels, seeded(part.tolist()), self.host.device)
                    for part, labels in parts
                ]
            )

    def _png(self, images: Tensor) -> bytes:
        return grid_png([images[: self.columns].clamp(-1, 1).cpu()])
