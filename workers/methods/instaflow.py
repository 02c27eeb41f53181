"""InstaFlow, Liu et al., arXiv:2309.06380."""

from service.methods.instaflow import InstaFlowSettings
from workers.data.source import Batch
from workers.randomness import BatchRng
from workers.templates.regression import Draw
from workers.templates.straight import Straight


class InstaFlow(Straight[InstaFlowSettings]):
    """Two segments: reflow with pairs of the guided teacher, then E |x0_theta(eps) - x0|^2 in one step. A straightened
    flow is near its own distillation, where the teacher's is far.

    Deviations: the distance is the squared one and not LPIPS, which small images cannot be judged by; the distillation
    keeps the teacher's pairs, and the straightened flow makes none of its own.
    """

    def segments(self) -> list[int]:
        return [self.settings.iterations, self.settings.distil_iterations]

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        at = super().draw(batch, segment, rng)
        return at if segment == 0 else self.from_noise(at)
