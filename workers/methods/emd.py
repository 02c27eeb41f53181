"""EM distillation, Xie et al., arXiv:2405.16852."""

import torch
from torch import Tensor

from service.methods.emd import EMDSettings
from workers.data.source import Batch
from workers.diffusion.losses import distribution_gradient
from workers.diffusion.paths import expand
from workers.methods.base import LossOut
from workers.randomness import BatchRng
from workers.templates.scores import Compared, Samples, ScoreMatching


class EMDistillation(ScoreMatching[EMDSettings]):
    """The student, a latent variable model x_t = alpha g(z) + sigma epsilon, climbs the likelihood of teacher samples.

    E-step: K Langevin steps take (epsilon, z), drawn from the student, to the teacher's x_t, under
    log p_phi(x_t) - log p_psi(x_t) + log N(epsilon) + log N(z): the fake score psi stands for the student's own
    density, which makes p_psi(z, epsilon | x_t) p_phi(x_t) of it. Steps are taken in epsilon, not x_t: the
    reparametrised sampler. M-step: g(z) descends |x_t - alpha g(z)|^2.

    Noise cancellation: a step is linear in epsilon but for the scores, so that epsilon is a sum of what
    the scores and what the noises put there; only the part of the scores, `drift`, is followed. K = 1 leaves the
    difference of scores, Diff-Instruct's gradient. Deviations: the cancelled noise includes the decayed first one, so
    nothing random is left where both scores agree; the loss has DMD's normalisation (arXiv:2311.18828, eq. 8).
    """

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        return super().loss(role, batch, segment, rng) if role == "fake" else self.descend(self.e_step(rng))

    def e_step(self, rng: BatchRng) -> Compared:
        """Samples of the moved latents, and where they should go: `real` less `fake` is all the drift, as x0."""
        settings, shape = self.settings, self.teacher.shape
        labels, exit = self.classes(rng, rng.size), torch.zeros(rng.size, dtype=torch.long, device=rng.device)
        start = torch.full((rng.size,), self.exits[0][0], dtype=torch.float64)
        z, epsilon, t = rng.normal(shape), rng.normal(shape), self.levels(rng, exit)
        ratio = expand(self.path.alpha(t) / self.path.sigma(t), z)
        drift = torch.zeros_like(epsilon)
        x = self.f(z.requires_grad_(), start, labels)
        for _ in range(settings.langevin_steps):
            x_t = self.path.add_noise(x.detach(), epsilon, t)
            with torch.no_grad():
                real = self.teacher.predict(x_t, t, labels)
                push = ratio * (real - self.other(Samples(x, labels, exit), x_t, t))
            drift = langevin(drift, push, settings.noise_step)
            epsilon = langevin(epsilon, push, settings.noise_step, rng.normal(shape))
            if settings.latent_step > 0:
                (pull,) = torch.autograd.grad(x, z, ratio * push)
                z = langevin(z.detach(), pull, settings.latent_step, rng.normal(shape)).requires_grad_()
                x = self.f(z, start, labels)
        return Compared(Samples(x, labels, exit), x_t, t, real, real - drift / ratio)

    def gradient(self, at: Compared) -> Tensor:
        return distribution_gradient(at.samples.x, at.real, at.fake)


def langevin(x: Tensor, force: Tensor, step: float, noise: Tensor | None = None) -> Tensor:
    """One step under N(0, I) and a force; without `noise`, what the force alone adds up to."""
    moved = (1 - step) * x + step * force
    return moved if noise is None else moved + (2 * step) ** 0.5 * noise
