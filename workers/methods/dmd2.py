"""Improved distribution matching distillation, Yin et al., arXiv:2405.14867."""

from torch import Tensor

from service.methods.dmd2 import DMD2Settings
from workers.diffusion.losses import distribution_gradient
from workers.templates.adversarial_scores import AdversarialScores
from workers.templates.scores import Compared


class DMD2(AdversarialScores[DMD2Settings]):
    """The student descends KL(student, teacher) at every noise level: its gradient is a difference of two scores.

    The fake score has a clock of its own (section 4.2). With `gan_weight`, a critic on the fake score's features tells
    the samples from images (4.3). Deviations with several steps: see the template; and an exit is compared from the
    noise level it is renoised to upwards (arXiv:2503.06674), since later steps are there for the finer levels.
    """

    def gradient(self, at: Compared) -> Tensor:
        return distribution_gradient(at.samples.x, at.real, at.fake)
