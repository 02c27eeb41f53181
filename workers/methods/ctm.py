"""Consistency trajectory models, Kim et al., arXiv:2310.02279."""

from service.methods.ctm import CTMSettings
from workers.data.source import Batch
from workers.methods.base import LossOut
from workers.randomness import BatchRng
from workers.templates.soft_consistency import SoftConsistency


class CTM(SoftConsistency[CTMSettings]):
    """Algorithm 1: L_CTM + lambda_DSM L_DSM (eq. 8 and 9), G being the template's `map`.

    It is sampled with gamma = 0 (algorithm 3), that is by its own jumps without fresh noise between them.

    Deviations: a pseudo-Huber distance of the clean images over the noise level, where the paper has LPIPS; no
    adversarial term; a fixed lambda_DSM; the DSM term is taken on a part of the batch, at the same times, and against
    the teacher's x0 instead of the image: its mean is the same where the teacher is right, its variance is less, and it
    is what a guided teacher means. The solver goes from t to u in a fixed number of steps of second order. s = 0 is
    drawn for half of the batch.
    """

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        trip = self.trip(batch, segment, rng)
        consistency = self.distance(trip.x0, trip.x0_target, trip).mean()
        denoising = self.mean_of_part(self.denoising(self.part(trip, rng)), trip)
        loss = consistency + self.settings.denoising_weight * denoising
        return LossOut(loss, {"consistency_loss": consistency.detach(), "denoising_loss": denoising.detach()})
