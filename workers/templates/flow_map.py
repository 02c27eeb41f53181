"""Template: a student that is told both ends of a step, and learns the flow map from any time to any earlier one."""

from typing import TypeVar

from torch import Tensor

from service.methods.templates import FlowMapSettings
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import jump
from workers.methods.base import Method
from workers.models.denoiser import Denoiser
from workers.templates.regression import Draw, Regression

S = TypeVar("S", bound=FlowMapSettings)


class KnowsTarget(Method[S]):
    """A student that is also told the time s that its step leads to.

    It is exported for one number of steps: only there is s a function of t, which a stock network can hold.
    """

    sampler_kind = "ddim"

    def make_student(self, start: Denoiser) -> Denoiser:
        return start.with_target()

    def students(self, segment: int, average: Denoiser) -> list[tuple[SamplerSpec, Denoiser]]:
        specs = [SamplerSpec.on(self.path, self.sampler_kind, steps) for steps in self.settings.student_steps()]
        return [(spec, average.baked(spec.times(spec.steps[0]))) for spec in specs]


class FlowMap(KnowsTarget[S], Regression[S]):
    """X(x, t, s) = one DDIM step from t to s with an x0 that depends on s; so X(x, t, t) = x on every path."""

    def map(self, network: Denoiser, x: Tensor, t: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """X(x, t, s) [B, ...] for 0 <= s <= t. Where s = t it is x.

        The network is asked about the others alone, even if there are none: all workers must ask equally often.
        """
        moves = s < t
        if bool(moves.all()):
            return jump(x, network.predict(x, t, labels, s=s), t, s, self.path)
        moved = x.clone()
        moved[moves] = self.map(network, x[moves], t[moves], s[moves], None if labels is None else labels[moves])
        return moved

    def output(self, at: Draw) -> Tensor:
        return self.map(self.student, at.x, at.t, at.s, at.labels)
