"""Latent adversarial diffusion distillation, Sauer et al., arXiv:2403.12015."""

import torch
from torch import Tensor

from service.methods.ladd import LADDSettings
from workers.randomness import BatchRng
from workers.templates.adversarial import LOWEST
from workers.templates.gan import AdversarialMethod, Answer


class LADD(AdversarialMethod[LADDSettings]):
    """Section 3: a critic on the frozen teacher's features of noised images, and no other loss.

    The critic's noise levels are logit-normal on a rectified flow (3.3), here at equal SNR on the teacher's path, times
    the student's own. With the paper's mean of 1, made for latents of 64 x 64 and more, an image of 8 x 8 drowns: the
    critic learns nothing and the student wanders. Deviations: see the template; features of the network's first half
    alone; R1, which the paper does without; the non-saturating loss unless hinge is asked for.
    """

    def critic_times(self, at: Answer, rng: BatchRng) -> Tensor:
        normal = torch.special.ndtri(rng.uniform().clamp(1e-6, 1 - 1e-6))
        flow_t = torch.sigmoid(self.settings.level_mean + self.settings.level_std * normal)
        t = self.path.t_of_angle(torch.atan2(flow_t, 1 - flow_t))
        return (t * at.t).clamp(LOWEST, float(self.levels.ceiling))
