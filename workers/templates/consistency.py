"""Template: a function with one value along each trajectory, learnt from neighbouring points of it."""

from typing import ClassVar, TypeVar

from torch import Tensor

from service.methods.templates import AveragedTargetSettings, SelfConsistencySettings
from workers.diffusion.ema import ema_update
from workers.diffusion.losses import pseudo_huber
from workers.diffusion.paths import expand
from workers.diffusion.sampler import SamplerKind, consistency_function
from workers.diffusion.solver import jump
from workers.models.counter import Counter
from workers.models.denoiser import Denoiser
from workers.templates.regression import Draw, Regression

HUBER_C = 0.03

S = TypeVar("S", bound=SelfConsistencySettings)
A = TypeVar("A", bound=AveragedTargetSettings)


class SelfConsistency(Regression[S]):
    """f(x_t, t) = f-(x_s, s), where x_s lies on the trajectory of x_t, a little below it.

    f- is the student as it is, and carries no gradient. The residual is divided by sigma(t): a plain x0 loss grows with
    the noise level, and many-step samples then get worse as training goes on.
    """

    sampler_kind: ClassVar[SamplerKind] = "renoise"

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.reference = self.student
        """What f- asks."""

    def f(self, network: Denoiser, x: Tensor, t: Tensor, at: Draw) -> Tensor:
        """The function that is to be consistent; here one that leads to the clean image, f(x, 0) = x."""
        return consistency_function(x, network.predict(x, t, at.labels), t, self.path)

    def neighbour(self, at: Draw) -> Tensor:
        """x_s: one DDIM step of the teacher."""
        return jump(at.x, self.teacher.predict(at.x, at.t, at.labels), at.t, at.s, self.path)

    def target(self, at: Draw) -> Tensor:
        return self.f(self.reference, self.neighbour(at), at.s, at)

    def output(self, at: Draw) -> Tensor:
        return self.f(self.student, at.x, at.t, at)

    def distance(self, output: Tensor, target: Tensor, at: Draw) -> Tensor:
        scale = expand(1 / self.path.sigma(at.t), output)
        return pseudo_huber(scale * output, scale * target, HUBER_C)


class AveragedTarget(SelfConsistency[A]):
    """f- is an average of the student."""

    def __init__(self, settings: A, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.reference = self.student.frozen_copy()
        self.followers["target"] = self.reference

    def decay(self) -> float:
        """Of the average, in this step."""
        return self.settings.target_decay

    def after_step(self) -> None:
        super().after_step()
        ema_update(self.reference, self.student, self.decay())


class SharedNoise(SelfConsistency[S]):
    """Without a teacher in the loss: x_s is the same image under less of the same noise.

    Given x_t, its mean over images is the teacher's own DDIM step, so where f is smooth both losses agree as s -> t.
    How far s is below t depends on how far training has come.
    """

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.counter = Counter()
        self.followers["counter"] = self.counter

    def progress(self) -> float:
        """Share of the steps that are done, in [0, 1)."""
        return self.counter.share(self.settings.iterations)

    def after_step(self) -> None:
        super().after_step()
        self.counter.count()

    def neighbour(self, at: Draw) -> Tensor:
        return self.path.add_noise(at.images, at.noise, at.s)
