"""Adversarial diffusion distillation, Sauer et al., arXiv:2311.17042."""

import torch
from torch import Tensor

from service.methods.add import ADDSettings
from workers.diffusion.losses import squared
from workers.randomness import BatchRng
from workers.templates.gan import AdversarialMethod, Answer


class ADD(AdversarialMethod[ADDSettings]):
    """Equation 1: L_adv + lambda L_distill, with L_distill = E c(t) |x0 - sg[teacher's x0 of (x0 noised to t)]|^2 and
    c(t) = alpha(t) (section 3.3).

    lambda is 2.5 in the paper, beside a sum over many heads; here all terms are means, and at 2.5 the distillation,
    which seeks modes, wins: samples become class means. Deviations: see the template; and the frozen teacher's features
    of noised images stand in for DINOv2's of clean ones, which know nothing of images as small as these: without noise,
    a critic of so few images learns them by heart.
    """

    def other_loss(self, at: Answer, rng: BatchRng) -> Tensor:
        t = rng.uniform()
        with torch.no_grad():
            x_t = self.path.add_noise(at.x0, rng.normal_like(at.x0), t)
            target = self.teacher.predict(x_t, t, at.labels)
        return self.settings.distillation_weight * self.path.alpha(t).to(at.x0) * squared(at.x0, target)
