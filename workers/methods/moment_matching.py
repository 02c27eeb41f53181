"""Multistep distillation by moment matching, Salimans et al., arXiv:2406.04103."""

import torch
from torch import Tensor

from service.methods.moment_matching import MomentMatchingSettings
from workers.data.source import Batch
from workers.diffusion.losses import squared, v_weight
from workers.diffusion.paths import expand
from workers.diffusion.solver import posterior
from workers.diffusion.timesteps import uniform
from workers.methods.base import LossOut
from workers.randomness import BatchRng
from workers.templates.scores import T_MIN, Compared, Samples, ScoreMatching


class MomentMatching(ScoreMatching[MomentMatchingSettings]):
    """Algorithm 2. Where an ancestral step of the student leads to, a noisy image says as much about the clean one as
    it does on the teacher's way: E[x~ | z_s] = E[x | z_s] at every level s of the step.

    z_t is a noised image, x~ = g_eta(z_t) the student's clean one, and z_s a draw from q(z_s | z_t, x~). The auxiliary
    g_phi, the template's fake score, learns E[x~ | z_s] and is drawn back to the teacher g_theta, so that it settles
    halfway; the student descends w(s) x~ . sg[g_phi(z_s) - g_theta(z_s)].

    Deviations: t is one of the k times that sampling visits and s even in the step below it, while the paper draws s
    in [0, 1] and t within 1/k above; w(s) is the v weight, SNR + 1, for the auxiliary, and its root, 1/sigma(s) on the
    VP path, for the student; the auxiliary takes several steps to one of the student.
    """

    sampler_kind = "ancestral"

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        assert batch is not None
        exit = (rng.uniform() * len(self.exits)).long()
        t, end = torch.tensor(self.exits, dtype=torch.float64)[exit].unbind(1)
        s = uniform(rng.uniform(), end.clamp(min=T_MIN), t)
        z_t = self.path.add_noise(batch.images, rng.normal_like(batch.images), t)
        with torch.set_grad_enabled(role == "student"):
            x = self.student.predict(z_t, t, batch.labels)
        samples = Samples(x, batch.labels, exit.to(rng.device))
        with torch.no_grad():
            z_s = posterior(z_t, x, rng.normal_like(x), t, s, self.path)
            real = self.teacher.predict(z_s, s, batch.labels)
        with torch.set_grad_enabled(role == "fake"):
            fake = self.other(samples, z_s, s)
        if role == "student":
            return self.descend(Compared(samples, z_s, s, real, fake))
        return LossOut((v_weight(s, self.path).to(x) * (squared(fake, x) + squared(fake, real))).mean())

    def gradient(self, at: Compared) -> Tensor:
        return expand(v_weight(at.t, self.path).sqrt(), at.fake) * (at.fake - at.real)
