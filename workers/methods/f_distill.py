"""One-step diffusion models with f-divergence distribution matching, Xu et al., arXiv:2502.15681."""

from collections.abc import Callable

from torch import Tensor

from service.methods.f_distill import Divergence, FDistillSettings
from workers.diffusion.losses import distribution_gradient, per_sample
from workers.diffusion.paths import expand
from workers.models.denoiser import Denoiser
from workers.models.running_mean import RunningMean
from workers.templates.adversarial_scores import AdversarialScores
from workers.templates.scores import Compared

H: dict[Divergence, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda r: r**0,
    "softened_rkl": lambda r: 1 / (1 + r),
    "js": lambda r: r / (1 + r),
    "squared_hellinger": lambda r: 0.5 * r**0.5,
    "forward_kl": lambda r: r,
    "jeffreys": lambda r: 1 + r,
}
"""h(r) = f''(r) r^2 of the divergence E_q f(p/q) between the teacher's density p and the student's q (table 1)."""
R_MIN, R_MAX = 0.1, 20.0


class FDistill(AdversarialScores[FDistillSettings]):
    """The gradient of the f-divergence of the noised densities is h(r) (s_q - s_p)(x_t) along dx_t/dtheta, r = p/q.

    r = exp(logit) of a critic at the samples, which is trained on images in any case; it is clipped, and h divided by
    its mean at like noise levels, a running one over steps. The normalised difference of scores is DMD's. Deviation:
    a critic that gives a logit for each place of its features is taken at their mean.
    """

    def __init__(self, settings: FDistillSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.mean_h = RunningMean()
        self.followers = {"mean_h": self.mean_h}

    def ratio(self, at: Compared) -> Tensor:
        """r [B] at the noised samples."""
        return per_sample(self.gan.logits(self.look(at))).exp().clamp(R_MIN, R_MAX)

    def gradient(self, at: Compared) -> Tensor:
        h = H[self.settings.divergence](self.ratio(at))
        self.mean_h.watch(h, at.t)
        weight = h / self.mean_h(at.t).to(h)
        return expand(weight, at.real) * distribution_gradient(at.samples.x, at.real, at.fake)

    def after_step(self) -> None:
        self.mean_h.after_step()
