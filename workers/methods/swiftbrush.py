"""SwiftBrush, Nguyen & Tran, arXiv:2312.05239."""

import dataclasses

import torch
from torch import Tensor

from service.methods.swiftbrush import SwiftBrushSettings
from workers.data.source import Batch
from workers.diffusion.losses import noise_gradient
from workers.methods.base import LossOut
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.scores import Compared, Samples, ScoreMatching

UNLABELLED = 0.1


class SwiftBrush(ScoreMatching[SwiftBrushSettings]):
    """sigma^2 (eps_phi - eps_psi)(x_t) moves x = G(z), one step from pure noise; no images are needed.

    With `fake_guidance_scale`, psi is guided as well, as in the paper's own runs; a tenth of its samples then come
    without their class. Deviations: psi is a LoRA only with `fake_lora_rank`, and is updated more than once per
    step.
    """

    def __init__(self, settings: SwiftBrushSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        if settings.fake_guidance_scale != 1 and teacher.null_label is None:
            raise ValueError(
                f"fake_guidance_scale is {settings.fake_guidance_scale}, but this teacher has no null class: use 1"
            )

    def other(self, samples: Samples, x_t: Tensor, t: Tensor) -> Tensor:
        conditional = super().other(samples, x_t, t)
        if self.settings.fake_guidance_scale == 1:
            return conditional
        free = super().other(self.unlabelled(samples, torch.ones(len(t), dtype=torch.bool)), x_t, t)
        return free + self.settings.fake_guidance_scale * (conditional - free)

    def unlabelled(self, samples: Samples, which: Tensor) -> Samples:
        assert samples.labels is not None
        assert self.teacher.null_label is not None
        labels = samples.labels.masked_fill(which.to(samples.labels.device), self.teacher.null_label)
        return dataclasses.replace(samples, labels=labels)

    def fake_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        if self.settings.fake_guidance_scale != 1:
            samples = self.unlabelled(samples, rng.uniform(len(samples.x)) < UNLABELLED)
        return super().fake_loss(samples, batch, rng)

    def gradient(self, at: Compared) -> Tensor:
        return noise_gradient(at.real, at.fake, at.t, self.path)
