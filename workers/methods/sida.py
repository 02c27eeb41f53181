"""Adversarial score identity distillation, Zhou et al., arXiv:2410.14919."""

from torch import Tensor, nn

from service.methods.sida import SiDASettings
from workers.data.source import Batch
from workers.diffusion.losses import mean_distance, score_identity
from workers.methods.base import LossOut
from workers.models.critic import FeatureMean
from workers.randomness import BatchRng
from workers.templates.adversarial_scores import AdversarialScores
from workers.templates.scores import Compared, Samples


class SiDA(AdversarialScores[SiDASettings]):
    """Half of SiD's loss (arXiv:2404.04057) and half of an adversarial one, which learns from images what the teacher
    has got wrong.

    The critic has no parameters of its own: its logits are the channel means of the features in the middle of the fake
    score, which learns to denoise the samples and to tell them from images in one loss. The student's adversarial loss
    is divided by mean |x - f_phi|, as SiD's is.

    Deviations: as SiD; the critic's loss has the template's constant weight, not EDM's of the noise level, samples and
    images are noised to one level but not by one noise, and logits are not clipped; both halves are there from the
    start.
    """

    critic_weight = 0.1
    """Without parameters of its own, the critic stays at chance with less."""

    def critic_network(self) -> nn.Module:
        return FeatureMean(self.fake)

    def gradient(self, at: Compared) -> Tensor:
        """Of Diff-Instruct: what is left if the scores pass no gradients on. Only shown, not descended."""
        return at.fake - at.real

    def student_loss(self, samples: Samples, batch: Batch | None, rng: BatchRng) -> LossOut:
        at = self.compare(samples, rng, through_scores=True)
        identity = score_identity(samples.x, at.real, at.fake, self.settings.alpha).mean()
        gan = (self.gan.generator_loss(self.look(at)) / mean_distance(samples.x, at.real)).mean()
        gap = self.gradient(at).detach().square().mean().sqrt()
        loss = 0.5 * identity + 0.5 * self.settings.gan_weight * gan
        return LossOut(loss, {"score_gap": gap, "gan_loss": gan.detach()})
