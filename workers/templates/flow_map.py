"""Template: the student jumps from any time t to any earlier time s in one call. It is told both times."""

from typing import TypeVar

from torch import Tensor

from service.methods.base import MethodSettings
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import jump
from workers.methods.base import Method
from workers.models.denoiser import Denoiser

S = TypeVar("S", bound=MethodSettings)


class FlowMap(Method[S]):
    """X(x, t, s): the point at s of the trajectory through x at t, as a DDIM step with an x0 that depends on s.

    In this form X(x, t, t) = x, and it is the same map on every noise path: what a paper writes as x + (s - t) u on
    straight lines is the jump with x0 = x - t u there. Plain networks know one time, so each number of sampling steps
    leaves a student of its own, with its target times folded into its weights.
    """

    sampler_kind = "ddim"

    def make_student(self, start: Denoiser) -> Denoiser:
        return start.with_target()

    def map(self, network: Denoiser, x: Tensor, t: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """X(x, t, s) of `network`."""
        return jump(x, network.predict(x, t, labels, s=s), t, s, self.path)

    def students(self, segment: int, average: Denoiser) -> list[tuple[SamplerSpec, Denoiser]]:
        every = [SamplerSpec("ddim", tuple(steps), self.path.timesteps) for steps in self.settings.student_steps()]
        return [(spec, average.baked(spec.times(spec.steps[0]))) for spec in every]
