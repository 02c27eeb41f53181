"""Template: a student that is told both ends of a step, and learns the flow map from any time to any earlier one."""

from typing import TypeVar

from torch import Tensor

from service.methods.base import FlowMapSettings
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import jump
from workers.models.denoiser import Denoiser
from workers.templates.regression import Draw, Regression

S = TypeVar("S", bound=FlowMapSettings)


class FlowMap(Regression[S]):
    """X(x, t, s) = one DDIM step from t to s with an x0 that depends on s; so X(x, t, t) = x on every path.

    A student is exported for one number of steps: only there is s a function of t, which a stock network can hold.
    """

    sampler_kind = "ddim"

    def make_student(self, start: Denoiser) -> Denoiser:
        return start.with_target()

    def map(self, network: Denoiser, x: Tensor, t: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """X(x, t, s) [B, ...] for 0 <= s <= t, t > 0."""
        return jump(x, network.predict(x, t, labels, s=s), t, s, self.path)

    def output(self, at: Draw) -> Tensor:
        return self.map(self.student, at.x, at.t, at.s, at.labels)

    def students(self, segment: int, average: Denoiser) -> list[tuple[SamplerSpec, Denoiser]]:
        specs = [
            SamplerSpec(self.sampler_kind, tuple(steps), self.path.timesteps) for steps in self.settings.student_steps()
        ]
        return [(spec, average.baked(spec.times(spec.steps[0]))) for spec in specs]
