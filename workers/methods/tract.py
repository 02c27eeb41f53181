"""Transitive closure time-distillation, Berthelot et al., arXiv:2303.04248."""

import torch
from torch import Tensor

from service.methods.tract import TractSettings
from workers.diffusion.ema import copy_weights, ema_update
from workers.diffusion.losses import squared, truncated_snr
from workers.diffusion.paths import expand
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import invert_target, jump
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.regression import Draw, Regression


class Tract(Regression[TractSettings]):
    """Algorithm 2: within each segment of the student's sampler, one step from any t lands at the segment's end s.

    Where it lands is learnt from t's neighbour t' below: the teacher takes the small step from t to t', the
    self-teacher, an average of the student, the rest from t' to s in one. A phase's student, of few segments, is the
    teacher of the next phase, which has fewer.
    """

    sampler_kind = "ddim"
    teacher_is_start = True

    def __init__(self, settings: TractSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.previous, self.self_teacher = self.student.frozen_copy(), self.student.frozen_copy()
        self.followers = {"previous": self.previous, "self_teacher": self.self_teacher}

    def segments(self) -> list[int]:
        return [self.settings.phase_iterations] * len(self.settings.phases())

    def small_step(self, segment: int) -> float:
        """t - t': every segment has as many of them."""
        teacher_steps, steps = self.settings.phases()[segment]
        t, s = SamplerSpec.on(self.path, "ddim", [steps]).times(steps)[0]
        return (t - s) * steps / teacher_steps

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        teacher_steps, steps = self.settings.phases()[segment]
        ends = torch.tensor(SamplerSpec.on(self.path, "ddim", [steps]).times(steps), dtype=torch.float64)
        i = (rng.uniform() * teacher_steps).long()
        t, s = ends[i % steps].unbind(1)
        return t - (i // steps) * self.small_step(segment), s

    def target(self, at: Draw) -> Tensor:
        """The x0 that takes the student from x_t to s in one step; in float64, for it divides by a small number."""
        teacher = self.teacher if at.segment == 0 else self.previous
        step = self.small_step(at.segment)
        further = at.t - at.s > 1.5 * step  # t' is not the segment's end yet
        t_ = torch.where(further, at.t - step, at.s)
        x, x0 = at.x.double(), teacher.predict(at.x, at.t, at.labels)
        x_ = jump(x, x0, at.t, t_, self.path)

        t_ = torch.where(further, t_, at.t)  # where it is, any time will do
        x0_ = self.self_teacher.predict(x_.to(at.x), t_, at.labels)
        x_s = torch.where(expand(further, x) > 0, jump(x_, x0_, t_, at.s, self.path), x_)
        return invert_target(x, x_s, at.t, at.s, self.path).to(at.x)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        return truncated_snr(at.t, self.path).to(output) * squared(output, target)

    def after_step(self) -> None:
        ema_update(self.self_teacher, self.student, self.settings.self_teacher_decay)

    def next_segment(self) -> None:
        copy_weights(self.previous, self.student)
        copy_weights(self.self_teacher, self.student)
