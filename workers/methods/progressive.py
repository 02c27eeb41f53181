"""Progressive distillation, Salimans & Ho, arXiv:2202.00512."""

from torch import Tensor

from service.methods.progressive import ProgressiveSettings
from workers.templates.ladder import Ladder
from workers.templates.regression import Draw


class Progressive(Ladder[ProgressiveSettings]):
    """Algorithm 2: one DDIM step of the student lands where two of its teacher land; its weight is SNR + 1 (eq. 9)."""

    def target(self, at: Draw) -> Tensor:
        teacher = self.above(at.segment)
        return self.landing(lambda x, t: teacher.predict(x, t, at.labels), at)
