"""Score identity distillation, Zhou et al., arXiv:2404.04057."""

from torch import Tensor

from service.methods.sid import SiDSettings
from workers.data.source import Batch
from workers.diffusion.losses import score_identity
from workers.methods.base import LossOut
from workers.randomness import BatchRng
from workers.templates.scores import Compared, Samples, ScoreMatching


class SiD(ScoreMatching[SiDSettings]):
    """The student descends the Fisher divergence at every noise level: (f_phi - f_psi) . (f_phi - x), less
    alpha |f_phi - f_psi|^2, with the teacher's x0 f_phi and the fake score's f_psi at x_t, over mean |x - f_phi|.

    Unlike the difference of scores that Diff-Instruct and DMD follow, both networks pass gradients on to x_t, and so
    to the student; neither is changed by them. Deviations: noise levels are even in time; several steps by the
    template's backward simulation (arXiv:2505.12674), an exit being compared from its renoising upwards; the fake
    score takes several steps to one of the student.
    """

    def gradient(self, at: Compared) -> Tensor:
        """Of Diff-Instruct: what is left if the scores pass no gradients on. Only shown, not descended."""
        return at.fake - at.real

    def student_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        at = self.compare(samples, rng, through_scores=True)
        loss = score_identity(samples.x, at.real, at.fake, self.settings.alpha).mean()
        return LossOut(loss, {"score_gap": self.gradient(at).detach().square().mean().sqrt()})
