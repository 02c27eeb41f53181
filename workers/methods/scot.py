"""Straight consistent trajectories, Wu et al., arXiv:2502.16972."""

from torch import Tensor

from service.methods.scot import SCoTSettings
from workers.data.source import Batch
from workers.diffusion.losses import squared
from workers.diffusion.paths import expand
from workers.methods.base import LossOut
from workers.randomness import BatchRng
from workers.templates.soft_consistency import SoftConsistency, Trip

CELL = 0.25
"""Width of the difference that stands for d/ds, in intervals of the time grid."""


class SCoT(SoftConsistency[SCoTSettings]):
    """Soft consistency, as in CTM, plus a velocity term: on the straight path, where tau = sigma/(alpha + sigma) is the
    time and x/(alpha + sigma) the image, d G(x_t, t, s)/d tau_s is to be one V for all s.

    V leads to x_t from the clean image x0 that the teacher's trajectory ends in: a line through both has
    G = x0 + (tau_s/tau_t)(x_t - x0), so V = (x_t - x0)/tau_t: noise less data, as time grows with noise here. Both
    terms agree on the clean end, G(x_t, t, 0) = x0; on the way there a teacher's trajectory is bent, and
    `velocity_weight` strikes the balance.

    Deviations: as in CTM, without its adversarial term; x0 is the target of the consistency term, which is the end of
    the teacher's trajectory once trained, and needs no further solver steps; d/ds is a difference of two jumps with
    gradients through both, exact for a straight way; a fixed weight where the paper adapts it.
    """

    def line(self, x: Tensor, t: Tensor) -> Tensor:
        """x on the straight path."""
        return x / expand(self.path.alpha(t) + self.path.sigma(t), x)

    def tau(self, t: Tensor) -> Tensor:
        return self.path.sigma(t) / (self.path.alpha(t) + self.path.sigma(t))

    def velocity(self, at: Trip) -> Tensor:
        """How far the map's velocity is from the constant one [B]."""
        later = at.s + CELL / self.settings.grid_steps
        change = self.line(self.map(self.student, at.x, at.t, later, at.labels), later) - self.line(at.x_s, at.s)
        of_map = change / expand(self.tau(later) - self.tau(at.s), change)
        constant = (self.line(at.x, at.t) - at.x0_target) / expand(self.tau(at.t), change)
        return squared(of_map, constant)

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        trip = self.trip(batch, segment, rng)
        part = self.part(trip, rng)
        consistency = self.distance(trip.x0, trip.x0_target, trip).mean()
        denoising = self.mean_of_part(self.denoising(part), trip)
        velocity = self.mean_of_part(self.velocity(part), trip)
        loss = consistency + self.settings.denoising_weight * denoising + self.settings.velocity_weight * velocity
        logs = {"consistency_loss": consistency, "denoising_loss": denoising, "velocity_loss": velocity}
        return LossOut(loss, {name: value.detach() for name, value in logs.items()})
